// Quiz: one of several answers to each question, and a reply to whichever is chosen.

// Text in which what stands between two backticks is code.
const withCode = (text) => text.split("`").map((piece, i) => (i % 2 ? html("code", {}, piece) : piece));

function render({ model, el }) {
  const { root, says, watch, end } = frame(el, model);
  const questions = model.get("questions");
  const choose = (number, answer) => {
    const chosen = [...model.get("chosen")];
    chosen[number] = answer;
    put(model, { chosen });
  };

  const asked = questions.map(({ question, answers }, number) => {
    instances += 1;
    const name = `ssd-quiz-${instances}`;
    const inputs = answers.map((_, k) =>
      html("input", { type: "radio", name, value: k, change: () => choose(number, k) }),
    );
    const rows = answers.map(({ text }, k) => html("label", {}, inputs[k], html("span", {}, withCode(text))));
    const reply = html("p", { class: "ssd-reply", role: "status" });
    const node = html(
      "fieldset",
      { class: "ssd-question" },
      html("legend", {}, `${number + 1}. `, withCode(question)),
      rows,
      reply,
    );
    const show = (k) => {
      for (const [i, row] of rows.entries()) {
        inputs[i].checked = i === k;
        row.classList.toggle("ssd-right", i === k && answers[i].right);
        row.classList.toggle("ssd-wrong", i === k && !answers[i].right);
      }
      const answer = answers[k];
      const text = answer ? [html("strong", {}, answer.right ? "✓ Right. " : "✗ Not right. "), withCode(answer.why)] : [];
      if (reply.dataset.answer !== String(k)) reply.replaceChildren(...text.flat()); // said once, not at every change
      reply.dataset.answer = k;
    };
    return { node, show };
  });
  root.querySelector(".ssd-columns").replaceWith(html("div", { class: "ssd-quiz" }, asked.map(({ node }) => node)));

  watch(["chosen"], () => {
    const chosen = model.get("chosen");
    for (const [number, { show }] of asked.entries()) show(chosen[number]);
    const right = questions.filter(({ answers }, number) => answers[chosen[number]]?.right).length;
    const done = chosen.filter((k) => k >= 0).length;
    says(done === 0 ? "Choose an answer; each has a reply." : `${right} of ${questions.length} right so far.`);
  });
  return end;
}

export default { render };
