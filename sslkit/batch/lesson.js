// A range shows the picture of its place; of several, the last changes fastest.
for (const figure of document.querySelectorAll("figure.frames")) {
  const ranges = [...figure.querySelectorAll("input[type=range]")], pictures = figure.querySelectorAll("img");
  const labels = ranges.map(range => JSON.parse(range.dataset.labels));
  figure.addEventListener("input", () => {
    let place = 0;
    ranges.forEach((range, k) => {
      place = place * labels[k].length + Number(range.value);
      range.setAttribute("aria-valuetext", labels[k][range.value]);
      range.parentElement.querySelector("output").textContent = labels[k][range.value];
    });
    pictures.forEach((picture, k) => { picture.hidden = k !== place; });
  });
  const play = figure.querySelector("button"), [range] = ranges;
  let clock = 0;
  const stop = () => { clearInterval(clock); clock = 0; play.textContent = "▶ play"; };
  const show = value => { range.value = value; figure.dispatchEvent(new Event("input")); };
  play.hidden = ranges.length > 1;
  range.addEventListener("input", stop);
  play.addEventListener("click", () => {
    if (clock) return stop();
    if (range.value === range.max) show(0);
    play.textContent = "❚❚ stop";
    clock = setInterval(() => range.value === range.max ? stop() : show(Number(range.value) + 1), 500);
  });
}
const button = document.querySelector("button.all-code");
if (button) {
  button.hidden = false;
  button.addEventListener("click", () => {
    const open = button.getAttribute("aria-pressed") !== "true";
    for (const code of document.querySelectorAll("details.code")) code.open = open;
    button.setAttribute("aria-pressed", open);
    button.textContent = open ? "hide all code" : "show all code";
  });
}
// Slides: right and left, also space and a presenter's keys, go from heading to heading; a range keeps its arrows.
const slides = [...document.querySelectorAll("section.slide")];
if (slides.length) document.addEventListener("keydown", event => {
  const step = { ArrowRight: 1, PageDown: 1, " ": 1, ArrowLeft: -1, PageUp: -1 }[event.key];
  if (!step || event.altKey || event.ctrlKey || event.metaKey || event.target.closest("input, summary, a, button")) return;
  const now = slides.findLastIndex(slide => slide.getBoundingClientRect().top < 2);
  const next = slides[Math.min(Math.max(now + step, 0), slides.length - 1)];
  event.preventDefault();
  next.scrollIntoView();
});
