// On a phone the page's contents open as a dialog: choosing a section closes it.
document.addEventListener("click", (event) => {
  const dialog = event.target.closest("dialog.bd-sidebar-secondary");
  if (dialog && event.target.closest("a")) dialog.close();
});

// Search results (only their page has `Search`) show the paragraph that has most of the words, as words; Sphinx shows
// the text around the first place where the letters occur, be it in the midst of another word, in a formula or a menu.
const found = (text, word) =>
  text.search(new RegExp(`(?<![\\p{L}\\p{N}])${word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}`, "iu"));

function excerpt(html, words, anchor) {
  const page = new DOMParser().parseFromString(html, "text/html");
  page.querySelectorAll(".headerlink, .math, script, style").forEach((element) => element.remove());
  const target = anchor ? page.getElementById(anchor.replace(/^#/, "")) : null;
  const article = target?.closest("dl, section") ?? page.querySelector("article.bd-article") ?? page.body;
  const plain = (element) => (element?.textContent ?? "").replace(/\s+/g, " ").trim();
  const blocks = [...article.querySelectorAll("p, li, dt, tr, pre")].map((element) => ({
    // what a function is for stands below its signature
    text: plain(element) +
      (element.matches(".sig") ? ` – ${plain(element.parentElement.querySelector("dd > p"))}` : ""),
    prose: element.matches("pre") ? 0 : 0.5,
  }));
  const score = ({ text, prose }) => prose + words.filter((word) => found(text, word) >= 0).length;
  const best = blocks.reduce((a, b) => (score(b) > score(a) ? b : a), { text: "", prose: 0 });
  const first = Math.min(...words.map((word) => found(best.text, word)).filter((at) => at >= 0));
  const start = Number.isFinite(first) && first > 100 ? best.text.indexOf(" ", first - 80) + 1 : 0;
  const end = start + 240 < best.text.length ? best.text.lastIndexOf(" ", start + 240) : best.text.length;
  return (start ? "… " : "") + best.text.slice(start, end) + (end < best.text.length ? " …" : "");
}

if (typeof Search !== "undefined")
  Search.makeSearchSummary = (html, words, anchor) => {
    const summary = document.createElement("p");
    summary.className = "context";
    summary.textContent = excerpt(html, [...words], anchor);
    return summary;
  };
