"use strict";

// What data says reaches the page as HTML that the server has escaped; this file never builds markup from text.

const find = (selector, root = document) => root.querySelector(selector);
const findAll = (selector, root = document) => [...root.querySelectorAll(selector)];
const page = document.body.dataset.page;

async function load(url, target) {
  const response = await fetch(url, { headers: { Accept: "text/html" } });
  const text = await response.text();
  const parsed = new DOMParser().parseFromString(text, "text/html");
  const source = response.ok ? parsed.body : find("main", parsed) || parsed.body;
  target.replaceChildren(...source.childNodes);
}

// -- the list ----------------------------------------------------------------------------------------------------------

function watchEnd(cards) {
  const link = find(".more a", cards);
  if (!link) return;
  const observer = new IntersectionObserver(async (entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    const response = await fetch(link.dataset.rows);
    if (!response.ok) return;
    const parsed = new DOMParser().parseFromString(await response.text(), "text/html");
    link.closest(".more").replaceWith(...parsed.body.childNodes);
    watchEnd(cards);
  }, { rootMargin: "1200px" });
  observer.observe(link);
}

function moveFocus(step) {
  const cards = findAll(".card");
  const current = cards.indexOf(document.activeElement.closest(".card"));
  const next = cards[Math.min(Math.max(current + step, 0), cards.length - 1)];
  if (!next) return;
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: "center", behavior: "instant" });
}

function startList() {
  watchEnd(find("#cards"));
  const facets = find("#facets");
  load(facets.dataset.url, facets);
  facets.addEventListener("click", (event) => {
    if (event.target.matches(".show-rest")) {
      event.target.closest(".facet").classList.add("all");
      event.target.remove();
    }
  });
  const form = find("#filters");
  form.addEventListener("submit", () => {
    // Empty fields would make every address as long as the form.
    for (const field of form.elements) if (!field.value || field.value === "table") field.disabled = true;
  });
  window.addEventListener("pageshow", () => { for (const field of form.elements) field.disabled = false; });
  form.addEventListener("change", (event) => { if (event.target.matches("select, [type=checkbox]")) form.requestSubmit(); });
  return {
    j: () => moveFocus(1),
    k: () => moveFocus(-1),
    Enter: () => find("a.open", document.activeElement.closest(".card") || document.body)?.click(),
    "/": () => find("[name=q]").focus(),
  };
}

// -- a pair ------------------------------------------------------------------------------------------------------------

function startLabels() {
  const form = find("#label");
  const annotator = find("[name=annotator]", form);
  const saved = find(".saved", form);
  annotator.value = localStorage.getItem("annotator") || annotator.value;
  let label = null;

  function show() {
    for (const button of findAll("button", form)) button.classList.toggle("chosen", button.value === label);
  }

  function showOwn() {
    const own = findAll(".labels li", form).find((item) => item.dataset.annotator === annotator.value.trim());
    label = own ? own.dataset.label : null;
    const reasons = own ? own.dataset.reasons.split(" ") : [];
    for (const box of findAll("[name=reasons]", form)) box.checked = reasons.includes(box.value);
    find("[name=note]", form).value = own ? own.dataset.note : "";
    show();
  }

  async function save(next) {
    label = next;
    show();
    saved.classList.remove("failed");
    saved.textContent = "saving …";
    const body = {
      annotator: annotator.value,
      label,
      reasons: findAll("[name=reasons]:checked", form).map((box) => box.value),
      note: find("[name=note]", form).value,
      is_blind: form.dataset.blind === "true",
    };
    try {
      const response = await fetch(form.dataset.url, {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-Mvl-Token": find("[name=mvl-token]").content },
        body: JSON.stringify(body),
      });
      if (!response.ok) throw new Error((await response.text()).slice(0, 300));
      saved.textContent = label === null ? "taken back" : `saved: ${label}`;
    } catch (error) {
      saved.classList.add("failed");
      saved.textContent = `not saved: ${error.message}`;
    }
  }

  const choose = (name) => save(label === name ? null : name);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("click", (event) => {
    const button = event.target.closest(".label-buttons button");
    if (button) choose(button.value);
  });
  form.addEventListener("change", (event) => {
    if (event.target === annotator) {
      localStorage.setItem("annotator", annotator.value);
      showOwn();
    } else if (label !== null) save(label);
  });
  showOwn();
  const keys = { g: () => choose("good"), b: () => choose("bad"), u: () => choose("unsure") };
  findAll("[name=reasons]", form).forEach((box, index) => { keys[index + 1] = () => box.click(); });
  return { ...keys, n: () => find("[name=note]", form).focus() };
}

function startPair() {
  const zoomed = find("#zoomed");
  const showImage = (link) => {
    find("img", zoomed).src = link.href;
    zoomed.classList.remove("actual");
    zoomed.showModal();
  };
  for (const link of findAll(".zoom")) {
    link.addEventListener("click", (event) => { event.preventDefault(); showImage(link); });
  }
  find("img", zoomed).addEventListener("click", () => zoomed.classList.toggle("actual"));
  zoomed.addEventListener("click", (event) => { if (event.target === zoomed) zoomed.close(); });
  for (const details of findAll("details[data-url]")) {
    const open = () => {
      if (details.open && !details.dataset.loaded) {
        details.dataset.loaded = "yes";
        load(details.dataset.url, find(".fragment", details));
      }
    };
    details.addEventListener("toggle", open);
    open();
  }
  return {
    ...startLabels(),
    j: () => find("#next")?.click(),
    k: () => find("#previous")?.click(),
    ArrowRight: () => find("#next")?.click(),
    ArrowLeft: () => find("#previous")?.click(),
    z: () => (zoomed.open ? zoomed.close() : find(".zoom") && showImage(find(".zoom"))),
    x: () => document.body.classList.toggle("without-boxes"),
    l: () => { const lineage = find("#lineage"); if (lineage) { lineage.open = !lineage.open; lineage.scrollIntoView(); } },
    Escape: () => find("#back").click(),
  };
}

// -- every page --------------------------------------------------------------------------------------------------------

async function waitForIndex() {
  for (;;) {
    const status = await (await fetch("/status")).json();
    if (status.is_ready || status.problem) return;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

const starts = { pairs: startList, pair: startPair };
const keys = starts[page] ? starts[page]() : {};
if (page === "building" && !find(".text")) waitForIndex().then(() => location.reload());
const help = find("#help");
find("#show-help")?.addEventListener("click", () => help.showModal());
help?.addEventListener("click", (event) => { if (event.target === help) help.close(); });
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input:not([type=checkbox]), textarea, select")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (find("dialog[open]")) {
    if (event.key === "z") find("dialog[open]").close();
    return;
  }
  if (event.key === "?" && help) return help.showModal();
  const action = keys[event.key] ?? (event.key === "m" && (() => find("#toggle-rendered")?.click()));
  if (!action) return;
  if (event.key !== "Enter" || document.activeElement.matches(".card")) {
    event.preventDefault();
    action();
  }
});
