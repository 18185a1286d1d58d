/** Calls `work` every `every_ms` while the page is seen, and at once when it is seen again. Used by main.js. */
export function whileSeen(work, every_ms) {
  let timer = 0;

  const run = async () => {
    clearTimeout(timer);
    await work();
    plan();
  };
  const plan = () => {
    clearTimeout(timer);
    if (!document.hidden) timer = setTimeout(run, every_ms);
  };
  document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : run()));
  plan();
}
