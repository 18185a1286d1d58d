"""Whether what a page shows can be read: the contrast of every text against what lies behind it."""

from __future__ import annotations

from playwright.sync_api import Page

# WCAG 2.2's relative luminance and contrast ratio; text on partly transparent grounds is mixed with what is below.
_MEASURE = """() => {
    const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const rgba = (color) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
        return [r, g, b, a / 255];
    };
    const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3]));
    const ground = (element) => {
        const layers = [];
        for (let one = element; one; one = one.parentElement) layers.push(rgba(getComputedStyle(one).backgroundColor));
        return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
    };
    const light = (color) => {
        const [r, g, b] = color.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const contrast = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
    const faint = new Map();
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    let measured = 0;
    while (walker.nextNode()) {
        const { parentElement: element, data } = walker.currentNode;
        if (!data.trim() || !element.checkVisibility({ visibilityProperty: true, opacityProperty: true })) continue;
        if (element.closest("title, option, .unseen")) continue;
        const style = getComputedStyle(element);
        const bar = element instanceof SVGElement && element.closest(".bar")?.querySelector("rect");
        let behind = ground(element);
        if (bar) {
            const fill = rgba(getComputedStyle(bar).fill);
            behind = over([...fill.slice(0, 3), fill[3] * Number(getComputedStyle(bar).fillOpacity)], behind);
        }
        const ink = rgba(element instanceof SVGElement ? style.fill : style.color);
        const ratio = contrast(over(ink, behind), behind);
        const size = parseFloat(style.fontSize);
        const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
        measured += 1;
        const name = `${element.nodeName} .${element.getAttribute("class")}`;
        if (ratio < (large ? 3 : 4.5)) faint.set(name, ratio.toFixed(2));
    }
    return [measured, [...faint].map((one) => one.join(" "))];
}"""


def too_faint(page: Page) -> list[str]:
    """Texts below WCAG AA (4.5, large ones 3), as "ELEMENT .class ratio"."""
    measured, faint = page.evaluate(_MEASURE)
    assert measured > 5
    found: list[str] = faint
    return found
