/**
 * What a person asked for, by name: under way, done, or failed. It outlives refreshes and views, so that one can go away
 * meanwhile and find the answer later; a reload of the page, or a forgotten key, ends it. Made by main.js.
 */

import { ApiError } from "./api.js";

const IDLE = { state: "idle" };

export class Work {
  /** `changed()` is called whenever something is to be drawn differently. */
  constructor(changed) {
    Object.assign(this, { changed, all: new Map() });
  }

  /** {state: "idle" | "busy" | "done" | "failed", value, error, since}, and what was given to `start` with it. */
  of(name) {
    return this.all.get(name) ?? IDLE;
  }

  /** Does `act`, unless it is being done already. Gives its value; null when it failed or was not begun. */
  async start(name, act, more = {}) {
    if (this.of(name).state === "busy") return null;
    const mine = { ...more, state: "busy", since: Date.now() / 1000 };
    this.put(name, mine);
    try {
      const value = await act();
      this.settle(name, mine, { ...more, state: "done", value });
      return value;
    } catch (error) {
      this.settle(name, mine, failed(error, more));
      return null;
    }
  }

  /** Reads something anew; what was known stays meanwhile, and when it can't be read. */
  async renew(name, act) {
    const before = this.of(name);
    try {
      this.settle(name, before, { state: "done", value: await act() });
    } catch (error) {
      if (before.state !== "done") this.settle(name, before, failed(error));
    }
  }

  drop(name) {
    this.all.delete(name);
    this.changed();
  }

  clear() {
    this.all.clear();
  }

  put(name, state) {
    this.all.set(name, state);
    this.changed();
  }

  /** Only if it is still what it was: after `clear` an answer belongs to nobody. */
  settle(name, mine, outcome) {
    if (this.of(name) === mine) this.put(name, outcome);
  }
}

function failed(error, more) {
  if (!(error instanceof ApiError)) console.error(error);
  return { ...more, state: "failed", error };
}

/** An error for people: what the server said, else what happened. */
export const saying = (error) => (error instanceof ApiError ? error.detail || error.title : "Something went wrong in this page");
