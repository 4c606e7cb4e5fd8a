// The rows as a tree, and which of them are to be seen. Nodes are numbers: rows from 0, then folds.

/**
 * @typedef {object} View
 * @property {Set<number>} open nodes whose children are shown
 * @property {boolean} folding whether repeats are one node
 * @property {string} query only what has this in its path or type, with what is above it
 * @property {string} sort column to sort by, empty for the order of execution
 * @property {boolean} up ascending
 * @property {boolean} flat all rows in one list
 */

/** @typedef {{nodes: number[], levels: number[], matches: number}} Seen */

export class Tree {
  /** @param {Doc} doc */
  constructor(doc) {
    const { depth, path } = doc.rows;
    this.doc = doc;
    this.size = path.length;
    this.count = this.size + doc.folds.length;
    /** @type {Map<string, number>} */
    this.at = new Map();
    /** @type {number[][]} */
    this.children = Array.from({ length: this.size }, () => []);
    /** @type {number[]} */
    this.parent = new Array(this.size).fill(-1);
    /** @type {number[]} */
    const above = [];
    for (let row = 0; row < this.size; row += 1) {
      this.at.set(path[row], row);
      while (above.length && depth[above[above.length - 1]] >= depth[row]) above.pop();
      if (above.length) {
        this.parent[row] = above[above.length - 1];
        this.children[this.parent[row]].push(row);
      }
      above.push(row);
    }
    /** @type {Map<number, number>} */
    this.foldOf = new Map();
    doc.folds.forEach((fold, index) => {
      for (const member of fold.members) this.foldOf.set(member, this.size + index);
    });
    /** @type {Map<number, number[]>} */
    this.foldedKids = new Map();
    for (const fold of doc.folds) {
      /** @type {number[]} */
      const kids = [];
      for (const child of this.children[fold.parent]) {
        const node = this.foldOf.get(child) ?? child;
        if (kids[kids.length - 1] !== node) kids.push(node);
      }
      this.foldedKids.set(fold.parent, kids);
    }
    /** @type {{query: string, exact: number[], near: Set<number>} | undefined} */
    this.last = undefined;
    this.words = path.map((name, row) => `${name} ${doc.rows.type[row]}`.toLowerCase());
  }

  /** @param {number} node */
  fold(node) {
    return node >= this.size ? this.doc.folds[node - this.size] : null;
  }

  /**
   * @param {number} node
   * @param {boolean} folding
   * @returns {number[]}
   */
  kids(node, folding) {
    const fold = this.fold(node);
    if (fold) return fold.members;
    return (folding && this.foldedKids.get(node)) || this.children[node];
  }

  /**
   * The nodes above, nearest first.
   * @param {number} node
   * @param {boolean} folding
   */
  above(node, folding) {
    const found = [];
    let at = node;
    for (;;) {
      const fold = this.fold(at);
      if (fold) at = fold.parent;
      else if (folding && this.foldOf.has(at)) at = /** @type {number} */ (this.foldOf.get(at));
      else at = this.parent[at];
      if (at < 0) return found;
      found.push(at);
    }
  }

  /**
   * Everything that holds a block, so that the blocks are what is seen; one level where none is known.
   * @param {boolean} folding
   */
  openedAtBlocks(folding) {
    const { block } = this.doc.rows;
    if (!block.some((row) => row > 0)) return this.opened(1, folding);
    /** @type {Set<number>} */
    const open = new Set([0]);
    for (const row of block) for (const node of this.above(row, folding)) open.add(node);
    return open;
  }

  /**
   * Everything that has children, down to a depth.
   * @param {number} most levels that are shown below the top
   * @param {boolean} folding
   */
  opened(most, folding) {
    /** @type {Set<number>} */
    const open = new Set();
    /** @type {[number, number][]} */
    const waiting = [[0, 0]];
    while (waiting.length) {
      const [node, level] = /** @type {[number, number]} */ (waiting.pop());
      const kids = this.kids(node, folding);
      // A fold is no level of the model.
      const next = this.fold(node) ? level : level + 1;
      if (!kids.length || next > most) continue;
      if (this.fold(node) && most !== Infinity) continue;
      open.add(node);
      for (const kid of kids) waiting.push([kid, next]);
    }
    return open;
  }

  /**
   * @param {View} view
   * @param {(node: number) => number | string | null} key what is sorted by
   * @returns {Seen}
   */
  seen(view, key) {
    const query = view.query.trim().toLowerCase();
    const hits = query ? this.matching(query) : null;
    if (view.flat) return this.list(view, key, hits);
    const folding = view.folding && !query;
    /** @type {number[]} */ const nodes = [];
    /** @type {number[]} */ const levels = [];
    /** @type {[number, number][]} */
    const waiting = this.size ? [[0, 1]] : [];
    while (waiting.length) {
      const [node, level] = /** @type {[number, number]} */ (waiting.pop());
      if (hits && !hits.near.has(node)) continue;
      nodes.push(node);
      levels.push(level);
      if (!hits && !view.open.has(node)) continue;
      const kids = this.kids(node, folding);
      const sorted = view.sort ? ordered(kids, key, view.up) : kids;
      for (let i = sorted.length - 1; i >= 0; i -= 1) waiting.push([sorted[i], level + 1]);
    }
    return { nodes, levels, matches: hits ? hits.exact.length : this.size };
  }

  /**
   * @param {View} view
   * @param {(node: number) => number | string | null} key
   * @param {{exact: number[]} | null} hits
   * @returns {Seen}
   */
  list(view, key, hits) {
    const rows = hits ? hits.exact : Array.from({ length: this.size }, (_, row) => row);
    const nodes = view.sort ? ordered(rows, key, view.up) : rows;
    return { nodes, levels: nodes.map(() => 1), matches: nodes.length };
  }

  /**
   * Whether a search shows something below a row.
   * @param {string} query
   * @param {number} row
   */
  leads(query, row) {
    const { near } = this.matching(query.trim().toLowerCase());
    return this.children[row].some((child) => near.has(child));
  }

  /** @param {string} query */
  matching(query) {
    if (this.last?.query === query) return this.last;
    /** @type {number[]} */ const exact = [];
    /** @type {Set<number>} */ const near = new Set();
    for (let row = 0; row < this.size; row += 1) {
      if (!this.words[row].includes(query)) continue;
      exact.push(row);
      for (let at = row; at >= 0 && !near.has(at); at = this.parent[at]) near.add(at);
    }
    this.last = { query, exact, near };
    return this.last;
  }
}

/**
 * @param {number[]} nodes
 * @param {(node: number) => number | string | null} key
 * @param {boolean} up
 */
function ordered(nodes, key, up) {
  const keyed = nodes.map((node) => /** @type {const} */ ([key(node), node]));
  keyed.sort(([first, a], [second, b]) => {
    // What has no value comes last, whichever way.
    if (first === null || second === null) return Number(first === null) - Number(second === null) || a - b;
    if (first === second) return a - b;
    return (first < second ? -1 : 1) * (up ? 1 : -1);
  });
  return keyed.map(([, node]) => node);
}
