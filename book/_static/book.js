// What the pages gain where scripts run: a field for a guess, cards with the meaning of a word, and figures that scroll by
// key. Without it the answers are folded all the same, and the words are links.
"use strict";

function askForGuess(details) {
  const form = document.createElement("form");
  form.className = "guess-form";
  const number = details.dataset.asks === "number";
  const label = document.createElement("label");
  label.append("Your guess ");
  const field = document.createElement("input");
  field.type = "text";
  field.autocomplete = "off";
  field.size = number ? 8 : 16;
  if (number) field.inputMode = "decimal";
  label.append(field);
  const button = document.createElement("button");
  button.textContent = "Compare";
  form.append(label, button);
  details.before(form);
  const verdict = document.createElement("p");
  verdict.className = "guess-verdict";
  verdict.setAttribute("role", "status");
  form.append(verdict);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const guess = field.value.trim();
    if (!guess) {
      verdict.textContent = "Type a guess first; a wrong one is worth more than none.";
      field.focus();
      return;
    }
    verdict.textContent = `You guessed ${guess}. ${judged(guess, details.dataset.answer, number)}`;
    details.open = true;
  });
}

function judged(guess, answer, number) {
  if (!number) {
    const bare = (text) => text.replace(/[\s()[\]]/g, "").toLowerCase();
    return bare(guess) === bare(answer) ? "Right." : "The answer is below.";
  }
  const [mine, right] = [guess.replace(/[,\s]/g, "").replace("−", "-"), answer].map(Number);
  if (Number.isNaN(mine)) return "The answer is below, a number.";
  if (Math.abs(mine - right) <= 0.02 * Math.abs(right)) return "Right.";
  const way = mine > right ? "smaller" : "larger";
  const factor = mine > right ? mine / right : right / mine;
  const by = mine > 0 && right > 0 && factor >= 1.95 ? `, by a factor of about ${Number(factor.toPrecision(2))}` : "";
  return `The answer is ${way}${by}.`;
}

// One card for all words. It can be pointed at, and Escape puts it away.
function explainWords(links) {
  const card = document.createElement("div");
  card.id = "meaning-card";
  card.className = "meaning-card";
  card.setAttribute("role", "tooltip");
  card.hidden = true;
  const text = document.createElement("span");
  const more = document.createElement("a");
  more.tabIndex = -1; // the word itself is the link for keys
  card.append(text, " ", more);
  document.body.append(card);
  let shown = null;
  let leaving = 0;

  const show = (link) => {
    clearTimeout(leaving);
    if (shown === link) return;
    hide();
    shown = link;
    text.textContent = link.dataset.meaning;
    more.href = link.href;
    more.textContent = link.matches(".source") ? "References" : "Glossary";
    card.hidden = false;
    link.setAttribute("aria-describedby", card.id);
    const [word] = link.getClientRects();
    const { width, height } = card.getBoundingClientRect();
    const room = document.documentElement.clientWidth;
    const left = Math.max(8, Math.min(word.left, room - width - 8));
    const above = word.top > height + 12;
    card.style.left = `${left + window.scrollX}px`;
    card.style.top = `${(above ? word.top - height - 4 : word.bottom + 4) + window.scrollY}px`;
  };
  const hide = () => {
    clearTimeout(leaving);
    shown?.removeAttribute("aria-describedby");
    shown = null;
    card.hidden = true;
  };
  const leave = () => {
    clearTimeout(leaving);
    leaving = setTimeout(hide, 250);
  };

  for (const link of links) {
    link.dataset.meaning = link.title;
    link.removeAttribute("title"); // else the browser would show a second card
    let touched = false;
    link.addEventListener("pointerdown", (event) => {
      touched = event.pointerType !== "mouse" && shown !== link;
    });
    link.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && show(link));
    link.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && leave());
    link.addEventListener("focus", () => touched || show(link));
    link.addEventListener("blur", leave);
    link.addEventListener("click", (event) => {
      if (!touched) return;
      event.preventDefault(); // a first tap shows the meaning, a second one follows the link
      touched = false;
      show(link);
    });
  }
  card.addEventListener("pointerenter", () => clearTimeout(leaving));
  card.addEventListener("pointerleave", leave);
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
  document.addEventListener("pointerdown", (event) => {
    if (shown && !card.contains(event.target) && !shown.contains(event.target)) hide();
  });
}

// A figure or table that is wider than its box on a phone can be reached and moved by key, and says what it is.
function scrollByKey(boxes) {
  const update = () => {
    for (const box of boxes) {
      const wide = box.scrollWidth > box.clientWidth + 1;
      if (wide) {
        box.tabIndex = 0;
        box.setAttribute("role", "group");
        box.setAttribute("aria-label", `${box.tagName === "PRE" ? "Table" : "Figure"} that scrolls sideways`);
      } else {
        for (const name of ["tabindex", "role", "aria-label"]) box.removeAttribute(name);
      }
    }
  };
  update();
  window.addEventListener("resize", update);
  document.addEventListener("toggle", update, true); // what was folded has no width before
}

function openAt(place) {
  const target = document.getElementById(decodeURIComponent(place.slice(1)));
  for (let fold = target?.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
}

for (const details of document.querySelectorAll("details.guess[data-asks]")) askForGuess(details);
const words = document.querySelectorAll("a.meaning[title]");
if (words.length) explainWords(words);
const wide = document.querySelectorAll('.drawing:has(> [class*="least-"]), .output.columns pre');
if (wide.length) scrollByKey(wide);
openAt(location.hash);
window.addEventListener("hashchange", () => openAt(location.hash));

// On paper every answer is open, also in browsers that cannot be told so by the style sheet.
let closed = [];
window.addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details.guess:not([open])")];
  for (const details of closed) details.open = true;
});
window.addEventListener("afterprint", () => {
  for (const details of closed) details.open = false;
});
