// The page's address follows what is looked at.

import * as states from 'layerbench/state';

// Browsers bear only so many changes of the address.
const REMEMBERED_MS = 200;

export class Address {
  /** What the address says now. */
  read() {
    return states.read(new URLSearchParams(location.hash.slice(1)));
  }

  /** @param {states.State} state */
  writeSoon(state) {
    window.clearTimeout(this.soon);
    this.soon = window.setTimeout(() => this.write(state), REMEMBERED_MS);
  }

  /** @param {states.State} state */
  write(state) {
    window.clearTimeout(this.soon);
    if (location.protocol === 'about:') return; // a frame in a notebook, which has no address
    const parameters = new URLSearchParams(location.hash.slice(1));
    states.write(state, parameters);
    const hash = parameters.toString();
    if (hash !== location.hash.slice(1)) history.replaceState(null, '', hash ? `#${hash}` : location.pathname + location.search);
  }
}
