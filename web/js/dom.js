/**
 * Builds elements, and changes what is on the screen into what should be there.
 * Used by every view. Text only ever enters through text nodes and attributes, so a name can never become markup.
 */

const SVG = "http://www.w3.org/2000/svg";
const HANDLERS = Symbol("handlers");

/** An HTML element. `props`: attributes; `on: {click: fn}`; `key`: its identity among its siblings over refreshes. */
export const h = (tag, props, ...children) => build(document.createElement(tag), props, children);

/** An SVG element, the same way. */
export const s = (tag, props, ...children) => build(document.createElementNS(SVG, tag), props, children);

function build(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") listen(element, value);
    else if (name === "key") element.setAttribute("data-key", value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child);
  }
}

/** One listener per type that looks its handler up when called, so that a refresh can hand over newer ones. */
function listen(element, handlers) {
  const had = element[HANDLERS] ?? {};
  element[HANDLERS] = handlers;
  for (const type of Object.keys(handlers)) {
    if (!(type in had)) element.addEventListener(type, (event) => element[HANDLERS][type]?.(event));
  }
}

const keyOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node.getAttribute("data-key") : null);
const alike = (a, b) => a.nodeName === b.nodeName && keyOf(a) === keyOf(b);

/** Makes `host` hold what `next` holds, keeping every node that stays: scroll, focus, selection and opened details live on. */
export function morph(host, next) {
  const focused = document.activeElement;
  morphChildren(host, next);
  if (focused !== document.activeElement && focused?.isConnected) focused.focus({ preventScroll: true });
}

function morphChildren(old, next) {
  const wanted = [...next.childNodes];
  const wantedKeys = new Set(wanted.map(keyOf));
  const kept = new Map([...old.childNodes].filter(keyOf).map((node) => [keyOf(node), node]));
  let at = old.firstChild;
  for (const node of wanted) {
    while (at && keyOf(at) && !wantedKeys.has(keyOf(at))) at = drop(at);
    const key = keyOf(node);
    const have = key ? kept.get(key) : at;
    if (!have || !alike(have, node)) {
      old.insertBefore(node, at);
      continue;
    }
    if (have === at) at = at.nextSibling;
    else old.insertBefore(have, at);
    morphNode(have, node);
  }
  while (at) at = drop(at);
}

function drop(node) {
  const following = node.nextSibling;
  node.remove();
  return following;
}

function morphNode(old, next) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== next.data) old.data = next.data;
    return;
  }
  morphAttributes(old, next);
  listen(old, next[HANDLERS] ?? {});
  morphChildren(old, next);
  if (old !== document.activeElement && (old.nodeName === "INPUT" || old.nodeName === "SELECT")) {
    old.checked = next.checked;
    old.value = next.value;
  }
}

function morphAttributes(old, next) {
  const own = old.nodeName === "DETAILS" ? "open" : null; // whether it is open belongs to the reader
  for (const { name } of [...old.attributes]) {
    if (name !== own && !next.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (name !== own && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
}
