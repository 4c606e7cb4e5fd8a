// What the page's modules are told (layerbench/reporters/html/schema.py) and what vendored ones offer.

declare module 'd3-hierarchy' {
  export interface Node<T> {
    data: T;
    depth: number;
    height: number;
    value?: number;
    parent: Node<T> | null;
    children?: Node<T>[];
    x0: number;
    x1: number;
    y0: number;
    y1: number;
    sum(value: (data: T) => number): this;
    eachBefore(visit: (node: Node<T>) => void): this;
  }
  export function hierarchy<T>(data: T, children?: (data: T) => Iterable<T> | null): Node<T>;
  export function partition<T>(): (root: Node<T>) => Node<T>;
}

declare module 'dagre' {
  export class Graph {
    setGraph(label: object): this;
    setNode(name: string, label: object): this;
    setEdge(from: string, to: string, label: object): this;
    graph(): { width?: number; height?: number };
    node(name: string): { x?: number; y?: number; width?: number; height?: number };
    edge(from: string, to: string): { points?: { x: number; y: number }[]; x?: number; y?: number };
  }
  export function layout(graph: Graph): unknown;
}

declare module 'uplot' {
  export default class uPlot {
    constructor(options: object, data: (number | null)[][], target: HTMLElement);
    cursor: { idx?: number | null; left?: number; top?: number };
    over: HTMLElement;
    setSize(size: { width: number; height: number }): void;
    destroy(): void;
  }
}

type Unit = 'seconds' | 'bytes' | 'flops' | 'count' | 'joules';

interface Metric {
  key: string;
  label: string;
  unit: Unit;
  how: string;
  values: (number | null)[];
  own: (number | null)[];
  area: number[];
  between?: ([number, number] | null)[];
  own_between?: ([number, number] | null)[];
}

interface Spread {
  key: string;
  label: string;
  fields: string[];
  rows: number[][];
  verdict: Record<string, string>;
  missed: Record<string, string[]>;
}

interface Fold {
  parent: number;
  members: number[];
  type: string;
  stats: Record<string, [number | null, number, number, number]>;
  verdicts: Record<string, number>;
}

interface Changed {
  baseline: string;
  contender: string;
  threshold: number;
  before: (number | null)[];
  after: (number | null)[];
  ratio: (number | null)[];
  low: (number | null)[];
  high: (number | null)[];
  verdict: string[];
  notes: Record<string, string>;
  differences: [string, string, string][];
}

interface Timeline {
  how: string;
  owner: (number | null)[];
  phase: string[];
  most: number[];
  end: number[];
  changes: [number, number][][];
  peak: string;
}

interface Roofline {
  flops_per_s: number | null;
  bytes_per_s: number | null;
  how: string;
  points: {
    row: number;
    intensity: number;
    rate: number;
    share: number | null;
    bound: string | null;
  }[];
}

interface Kernels {
  names: string[];
  labels: string[];
  entries: [number, number, string, number, number, number][];
}

interface PageGraph {
  paths: string[];
  kinds: string[];
  names: string[];
  edges: [number, number, string][];
  folds: [number, number, string][];
}

interface Doc {
  form: 1;
  title: string;
  subtitle: string;
  head: string;
  facts: [string, string][];
  source: [string, string][];
  notes: string[];
  warnings: string[];
  rows: {
    path: string[];
    type: string[];
    kind: ('module' | 'function' | 'range' | 'missing')[];
    depth: number[];
    calls: number[];
    block: number[];
    inputs: string[];
    outputs: string[];
    note: Record<string, string>;
    kernel: Record<string, string>;
    groups: Record<string, number>;
    bound?: Record<string, string>;
  };
  metrics: Metric[];
  spreads: Spread[];
  folds: Fold[];
  changed: Changed | null;
  timeline: Timeline | null;
  roofline: Roofline | null;
  kernels?: Kernels;
  graphs?: PageGraph[];
}
