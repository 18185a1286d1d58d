/** Lists that the server gives in pages, read again from the top at each refresh. Used by the views. */

import { get } from "./api.js";

const PAGE = 50;
const MOST = 500; // the API's largest limit

/**
 * A list that grows by `more()`. `load(params, signal)` reads all that is wanted; then `items` and `total` are set.
 * `field`: the answer's key, `id`: the item's identity, so that one that moved between two requests is shown once.
 */
export class Pages {
  constructor(path, field, id, wanted = PAGE) {
    Object.assign(this, { path, field, id, wanted, items: [], total: 0, hasMore: false });
  }

  more() {
    this.wanted += PAGE;
  }

  async load(params = {}, signal = undefined) {
    const found = new Map();
    let page = { total: 0, has_more: true };
    for (let offset = 0; offset < this.wanted && page.has_more; offset += MOST) {
      const limit = Math.min(MOST, this.wanted - offset);
      const answer = await get(this.path, { ...params, offset, limit }, signal);
      for (const item of answer[this.field]) found.set(item[this.id], item);
      page = answer.page;
    }
    Object.assign(this, { items: [...found.values()], total: page.total, hasMore: page.has_more });
  }
}
