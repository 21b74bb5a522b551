// Keeps a page fresh: fetches it again every data-refresh-ms of its <main> and replaces the <main> where it changed.
// A run's page loses that attribute when the run has ended, and with it the refreshing. Nothing else needs this script.
"use strict";
(() => {
  const SLOWEST_MS = 30000;
  let pauseMs = 0;

  const main = () => document.querySelector("main");
  const period = () => Number(main().dataset.refreshMs || 0);

  /** Someone is typing, choosing or selecting text: leave the page alone. */
  function isBusy() {
    const active = document.activeElement;
    const typing = active && main().contains(active) && active.matches("input, select, textarea, button");
    const selection = window.getSelection();
    return Boolean(typing) || Boolean(selection && !selection.isCollapsed);
  }

  function keepOpened(from, to) {
    for (const old of from.querySelectorAll("details[id]")) {
      const fresh = to.querySelector(`#${CSS.escape(old.id)}`);
      if (fresh) fresh.open = old.open;
    }
  }

  function keepScrolled(from, to) {
    const before = from.querySelectorAll(".scroll, .value");
    const after = to.querySelectorAll(".scroll, .value");
    if (before.length !== after.length) return;
    before.forEach((old, at) => after[at].scrollTo(old.scrollLeft, old.scrollTop));
  }

  async function refresh() {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (!answer.ok) throw new Error(String(answer.status));
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const old = main();
    const fresh = page.querySelector("main");
    if (!fresh || isBusy()) return;
    keepOpened(old, fresh);
    if (fresh.outerHTML === old.outerHTML) return;
    const focused = document.activeElement && old.contains(document.activeElement) ? document.activeElement : null;
    const address = focused && focused.getAttribute("href");
    old.replaceWith(document.adoptNode(fresh));
    keepScrolled(old, main());
    document.title = page.title;
    if (address) main().querySelector(`a[href="${CSS.escape(address)}"]`)?.focus({ preventScroll: true });
  }

  async function tick() {
    if (!document.hidden) {
      try {
        const started = performance.now();
        await refresh();
        pauseMs = Math.max(period(), 10 * (performance.now() - started)); // a slow page is not made slower
      } catch {
        pauseMs = Math.min(Math.max(pauseMs, period()) * 2, SLOWEST_MS);
      }
    }
    if (period()) setTimeout(tick, Math.max(pauseMs, period()));
  }

  if (period()) setTimeout(tick, period());
})();
