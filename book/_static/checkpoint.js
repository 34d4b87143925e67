// Checkpoint questions: without a script each answer is a box that opens on what is to be said of it; with one, how many
// tries a question took is kept in this browser.
import { keep, recall, whenever } from "scalebook/kept";

const said = ({ tries, found }) =>
  found ? (tries === 1 ? "Right at your first try." : `Right at try ${tries}.`) : "Not yet. Try another answer.";

for (const question of document.querySelectorAll(".sl-question")) {
  const key = question.dataset.question;
  const options = [...question.querySelectorAll("details")];
  const status = question.appendChild(document.createElement("p"));
  status.className = "sl-question-said";
  status.setAttribute("role", "status");
  let tried = new Set();
  for (const option of options) {
    option.addEventListener("toggle", () => {
      const before = recall("answer", key);
      if (!option.open || before?.found || tried.has(option)) return;
      tried.add(option);
      const right = option.classList.contains("sl-right");
      keep("answer", key, { tries: (before?.tries ?? 0) + 1, found: right });
    });
  }
  whenever(() => {
    const kept = recall("answer", key);
    if (!kept) tried = new Set();
    status.textContent = kept ? said(kept) : "";
  });
}
