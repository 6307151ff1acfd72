// Draws <main> again every few seconds, changing only what differs, so that a selection and the reader's place survive.
"use strict";
(() => {
  const EVERY = 3000;
  const version = document.body.dataset.version;
  const live = document.getElementById("live");
  let updated = new Date();
  let strangers = 0;
  let timer = 0;

  const tell = (state, text) => {
    live.className = `live ${state}`;
    if (live.textContent !== text) live.textContent = text;
  };

  const morph = (now, next) => {
    if (now.isEqualNode(next)) return;
    if (now.nodeType !== next.nodeType || now.nodeName !== next.nodeName || now.childNodes.length !== next.childNodes.length) {
      now.replaceWith(document.importNode(next, true));
      return;
    }
    if (now.nodeType === Node.TEXT_NODE) now.data = next.data;
    if (now.nodeType === Node.ELEMENT_NODE) {
      for (const { name } of [...now.attributes]) if (!next.hasAttribute(name)) now.removeAttribute(name);
      for (const { name, value } of next.attributes) if (now.getAttribute(name) !== value) now.setAttribute(name, value);
    }
    [...now.childNodes].forEach((child, index) => morph(child, next.childNodes[index]));
  };

  const refresh = async () => {
    clearTimeout(timer);
    try {
      const answer = await fetch("api/platform?view=page", { cache: "no-store", signal: AbortSignal.timeout(2 * EVERY) });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      if (answer.headers.get("X-Page-Version") === version) {
        strangers = 0;
        const drawn = new DOMParser().parseFromString(await answer.text(), "text/html");
        morph(document.querySelector("main"), drawn.querySelector("main"));
      } else if (++strangers > 3) {
        // During a rollout both releases answer in turn, and the other one's markup does not fit this style.
        // When only the other one answers, it is time to load its page.
        location.reload();
      }
      updated = new Date();
      tell("on", "live");
    } catch {
      tell("off", `no answer since ${updated.toLocaleTimeString()}`);
    }
    timer = setTimeout(refresh, document.hidden ? 10 * EVERY : EVERY);
  };

  document.addEventListener("visibilitychange", () => document.hidden || refresh());
  tell("on", "live");
  timer = setTimeout(refresh, EVERY);
})();
