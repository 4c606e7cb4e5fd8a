// Where the nodes of a graph stand: what is folded, the places that dagre gives, and the edges' ways.

import { Graph, layout } from 'dagre';

// Ranks that edges pass, all together: the layout puts a node of its own into each.
const MOST_PASSED = 1500;
// With more edges their shapes are in the table alone.
const MOST_LABELS = 120;
const MARGIN = 12;
const BOW = 14;
// Room for all edges that go past all nodes.
const ASIDE = 400;

/** @typedef {{start: number, end: number, fold: number}} Item `fold` is a fold's number, or -1 */
/** @typedef {{from: number, to: number, shapes: string[]}} Edge between items */
/** @typedef {{x: number, y: number}} Point */
/** @typedef {{x: number, y: number, width: number, height: number}} Box `x` and `y` of the middle */
/** @typedef {{nodes: Box[], ways: Point[][], labels: (Point | null)[], width: number, height: number}} Places */

/**
 * What is drawn of a graph while some of its folds are open.
 * @param {PageGraph} graph
 * @param {Set<number>} opened
 */
export function items(graph, opened) {
  /** @type {Item[]} */ const found = [];
  /** @type {number[]} */ const place = [];
  for (let at = 0; at < graph.kinds.length; ) {
    const here = at;
    const fold = graph.folds.findIndex(([start], index) => start === here && !opened.has(index));
    const end = fold < 0 ? at + 1 : graph.folds[fold][1];
    for (; at < end; at += 1) place[at] = found.length;
    found.push({ start: here, end, fold });
  }
  return { found, place };
}

/**
 * All tensors that go from one item to another are one edge.
 * @param {PageGraph} graph
 * @param {number[]} place the item of each node
 */
export function edges(graph, place) {
  /** @type {Map<string, Edge>} */ const between = new Map();
  for (const [source, target, shape] of graph.edges) {
    const [from, to] = [place[source], place[target]];
    if (from === to) continue;
    const key = `${from} ${to}`;
    const edge = between.get(key);
    if (edge) edge.shapes.push(shape);
    else between.set(key, { from, to, shapes: [shape] });
  }
  return [...between.values()];
}

/** @param {Edge} edge */
export function label(edge) {
  const more = edge.shapes.length - 1;
  return more ? `${edge.shapes[0]} +${more}` : edge.shapes[0];
}

/**
 * @param {{width: number, height: number}[]} sizes of the items
 * @param {Edge[]} all
 * @param {(text: string) => number} wide width of a text
 * @returns {Places}
 */
export function places(sizes, all, wide) {
  const graph = new Graph();
  graph.setGraph({ rankdir: 'TB', nodesep: 18, ranksep: all.length > MOST_LABELS ? 30 : 16, edgesep: 10, marginx: MARGIN, marginy: MARGIN });
  sizes.forEach((size, node) => graph.setNode(String(node), { ...size }));
  const near = short(sizes.length, all);
  const labelled = all.length <= MOST_LABELS;
  for (const edge of near) graph.setEdge(String(edge.from), String(edge.to), labelled ? { width: wide(label(edge)) + 8, height: 14, labelpos: 'c' } : {});
  layout(graph);
  const nodes = sizes.map((_, node) => /** @type {Box} */ (graph.node(String(node))));
  const size = graph.graph();
  let right = size.width ?? 0;
  const step = Math.min(BOW / 2, ASIDE / Math.max(1, all.length - near.size));
  /** @type {(Point | null)[]} */ const labels = [];
  const ways = all.map((edge) => {
    if (near.has(edge)) {
      const way = graph.edge(String(edge.from), String(edge.to));
      labels.push(labelled ? { x: way.x ?? 0, y: way.y ?? 0 } : null);
      return /** @type {Point[]} */ (way.points);
    }
    labels.push(null);
    right += step;
    const [from, to] = [nodes[edge.from], nodes[edge.to]];
    return [{ x: from.x + from.width / 2, y: from.y }, { x: right, y: from.y + BOW }, { x: right, y: to.y - BOW }, { x: to.x + to.width / 2, y: to.y }];
  });
  return { nodes, ways, labels, width: right + (right > (size.width ?? 0) ? MARGIN : 0), height: size.height ?? 0 };
}

/**
 * The edges that are laid out: the shortest. The others go past all nodes, as a layout of many long
 * ones takes minutes.
 * @param {number} count of the items
 * @param {Edge[]} all
 */
function short(count, all) {
  const rank = new Array(count).fill(0);
  // Items are in order of execution, edges lead forward.
  const forward = [...all].sort((a, b) => a.from - b.from);
  for (const { from, to } of forward) rank[to] = Math.max(rank[to], rank[from] + 1);
  const bySpan = [...all].sort((a, b) => rank[a.to] - rank[a.from] - (rank[b.to] - rank[b.from]));
  /** @type {Set<Edge>} */ const found = new Set();
  let passed = 0;
  for (const edge of bySpan) {
    passed += rank[edge.to] - rank[edge.from];
    if (passed > MOST_PASSED && rank[edge.to] - rank[edge.from] > 1) break;
    found.add(edge);
  }
  return found;
}

/**
 * A line through points, its corners rounded.
 * @param {Point[]} points
 */
export function path(points) {
  const [first, ...rest] = points;
  const at = (/** @type {Point} */ { x, y }) => `${x.toFixed(1)} ${y.toFixed(1)}`;
  let way = `M${at(first)}`;
  rest.forEach((point, index) => {
    const next = rest[index + 1];
    if (!next) way += `L${at(point)}`;
    else way += `Q${at(point)} ${at({ x: (point.x + next.x) / 2, y: (point.y + next.y) / 2 })}`;
  });
  return way;
}
