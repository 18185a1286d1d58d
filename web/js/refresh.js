/** Calls `work` every `every_ms` while the page is seen, and at once when it is seen again after longer. Used by main.js. */
export function whileSeen(work, every_ms) {
  let timer = 0;
  let last = performance.now();

  const run = async () => {
    clearTimeout(timer);
    last = performance.now();
    await work();
    plan();
  };
  const plan = () => {
    clearTimeout(timer);
    if (!document.hidden) timer = setTimeout(run, Math.max(0, last + every_ms - performance.now()));
  };
  document.addEventListener("visibilitychange", plan);
  plan();
}
