// Where the nodes of a graph lie and how the lines between them run. Pure; computed once a topology and width of the room.
import { Graph, layout as layOut } from "@dagrejs/dagre";
import type { EdgeRow } from "../api";

export interface Point {
  x: number;
  y: number;
}

export interface Line {
  source: string;
  target: string;
  path: string;
  /** The tip of the arrow, as a path. */
  head: string;
}

export interface Layout {
  width: number;
  height: number;
  /** Centres by key. */
  places: ReadonlyMap<string, Point>;
  lines: readonly Line[];
  /** The height at which the row of nodes that have no edge begins; null where there is none. */
  apart: number | null;
  /** True where the lines only show the order of nodes of which no edge is known. */
  ordered: boolean;
}

export interface Size {
  width: number;
  height: number;
}

/** A graph is made no smaller than this to fit; then it scrolls. */
export const SMALLEST = 0.75;
/** What of a graph is seen without scrolling. */
export const TALLEST = 460;

const GAP = 40;
const ROW_GAP = 38;
const BESIDE = 18;
const MARGIN = 4;
const CAPTION = 34;
const TIP = 6;

/** The scale at which a layout is shown in a room of this width. */
export function scaleIn(layout: Size, room: number): number {
  return Math.min(1, Math.max(SMALLEST, room / layout.width));
}

/** Lays out nodes of one size in a room that is `room` wide: as a row, in rows or as a column where they are a chain, and else in layers. */
export function place(keys: readonly string[], edges: readonly EdgeRow[], size: Size, room: number): Layout {
  const known = new Set(keys);
  const between = edges.filter(({ source, target }) => source !== target && known.has(source) && known.has(target));
  const linked = new Set(between.flatMap(({ source, target }) => [source, target]));
  if (linked.size === 0) return chained(keys, size, room, true);
  const within = keys.filter((key) => linked.has(key));
  const chain = chainOf(within, between);
  const layout = chain ? chained(chain, size, room, false) : layered(within, between, size, room);
  return withApart(layout, keys.filter((key) => !linked.has(key)), size, room);
}

/** The keys in the order of their edges where these are one chain; null otherwise. */
function chainOf(keys: readonly string[], edges: readonly EdgeRow[]): string[] | null {
  const next = new Map(edges.map(({ source, target }) => [source, target]));
  const targets = new Set(next.values());
  if (edges.length !== keys.length - 1 || next.size !== edges.length || targets.size !== edges.length) return null;
  const chain: string[] = [];
  for (let key = keys.find((each) => !targets.has(each)); key !== undefined && chain.length < keys.length; key = next.get(key)) chain.push(key);
  return chain.length === keys.length ? chain : null;
}

function chained(keys: readonly string[], size: Size, room: number, ordered: boolean): Layout {
  const fit = (scale: number) => Math.floor((room / scale - 2 * MARGIN + GAP) / (size.width + GAP));
  // Rows of two are read as a table: then a column is clearer.
  const most = keys.length <= fit(SMALLEST) ? keys.length : fit(1) < 3 ? 1 : fit(1);
  const columns = Math.ceil(keys.length / Math.ceil(keys.length / Math.max(1, most)));
  const places = new Map<string, Point>();
  for (const [index, key] of keys.entries()) {
    places.set(key, {
      x: MARGIN + size.width / 2 + (index % columns) * (size.width + GAP),
      y: MARGIN + size.height / 2 + Math.floor(index / columns) * (size.height + ROW_GAP),
    });
  }
  const lines = keys.slice(1).map((target, index) => {
    const source = keys[index] ?? "";
    return { source, target, ...chainLine(places.get(source) ?? { x: 0, y: 0 }, places.get(target) ?? { x: 0, y: 0 }, size) };
  });
  const height = Math.ceil(keys.length / columns) * (size.height + ROW_GAP) - ROW_GAP + 2 * MARGIN;
  return { width: columns * (size.width + GAP) - GAP + 2 * MARGIN, height, places, lines, apart: null, ordered };
}

/** From a node to the next: to the right, straight down, or down and back to the begin of the next row. */
function chainLine(from: Point, to: Point, { width, height }: Size): { path: string; head: string } {
  if (from.y === to.y) {
    const [start, end] = [from.x + width / 2, to.x - width / 2];
    return { path: `M${start} ${from.y}H${end - TIP}`, head: tip({ x: end, y: to.y }, { x: 1, y: 0 }) };
  }
  const [start, end] = [from.y + height / 2, to.y - height / 2];
  const head = tip({ x: to.x, y: end }, { x: 0, y: 1 });
  if (from.x === to.x) return { path: `M${from.x} ${start}V${end - TIP}`, head };
  const middle = (start + end) / 2;
  const r = 8;
  return { path: `M${from.x} ${start}V${middle - r}q0 ${r} ${-r} ${r}H${to.x + r}q${-r} 0 ${-r} ${r}V${end - TIP}`, head };
}

function layered(keys: readonly string[], edges: readonly EdgeRow[], size: Size, room: number): Layout {
  const across = inLayers(keys, edges, size, "LR");
  const down = inLayers(keys, edges, size, "TB");
  // Whichever has less to scroll; across where both fit, since names are read that way.
  const beyond = (layout: Layout) => {
    const scale = scaleIn(layout, room);
    return Math.max(0, layout.width * scale - room) + Math.max(0, layout.height * scale - TALLEST);
  };
  return beyond(down) < beyond(across) ? down : across;
}

function inLayers(keys: readonly string[], edges: readonly EdgeRow[], size: Size, rankdir: "LR" | "TB"): Layout {
  const graph = new Graph();
  graph.setGraph({ rankdir, nodesep: BESIDE, edgesep: 12, ranksep: rankdir === "LR" ? GAP : ROW_GAP, marginx: MARGIN, marginy: MARGIN });
  graph.setDefaultEdgeLabel(() => ({}));
  // Keys are arbitrary text; the library is given numbers.
  const ids = new Map(keys.map((key, index) => [key, `n${index}`]));
  for (const id of ids.values()) graph.setNode(id, { ...size });
  for (const { source, target } of edges) graph.setEdge(ids.get(source) ?? "", ids.get(target) ?? "");
  layOut(graph);
  const places = new Map<string, Point>();
  for (const [key, id] of ids) {
    const { x, y } = graph.node(id) as Point;
    places.set(key, { x, y });
  }
  const across = rankdir === "LR";
  const columns = [...new Set([...places.values()].map(({ x, y }) => (across ? x : y)))];
  const seen = new Set<string>();
  const lines: Line[] = [];
  for (const { source, target } of edges) {
    const pair = `${ids.get(source)} ${ids.get(target)}`;
    if (seen.has(pair)) continue;
    seen.add(pair);
    const { points } = graph.edge(ids.get(source) ?? "", ids.get(target) ?? "") as { points: Point[] };
    const [from, to] = [places.get(source) ?? { x: 0, y: 0 }, places.get(target) ?? { x: 0, y: 0 }];
    lines.push({ source, target, ...curve(points, from, to, columns, size, across) });
  }
  const { width = 0, height = 0 } = graph.graph() as Partial<Size>;
  return { width, height, places, lines, apart: null, ordered: false };
}

/** From the side of one node to the side of the next: bent only between layers, and straight past the nodes of a layer. */
function curve(points: readonly Point[], source: Point, target: Point, columns: readonly number[], size: Size, across: boolean): { path: string; head: string } {
  // Reckoned as if layers followed each other to the right; turned where they follow each other downwards.
  const turn = ({ x, y }: Point): Point => (across ? { x, y } : { x: y, y: x });
  const half = (across ? size.width : size.height) / 2;
  const [from, to] = [turn(source), turn(target)];
  if (to.x <= from.x) return backwards(from, to, across ? size.height / 2 : size.width / 2, turn);
  const end = { x: to.x - half, y: to.y };
  const stops: Point[] = [{ x: from.x + half, y: from.y }];
  for (const point of points.slice(1, -1).map(turn)) {
    if (columns.some((column) => Math.abs(column - point.x) < 1)) stops.push({ x: point.x - half, y: point.y }, { x: point.x + half, y: point.y });
  }
  stops.push({ x: end.x - TIP, y: end.y });
  let path = `M${at(turn(stops[0] ?? end))}`;
  for (const [index, stop] of stops.slice(1).entries()) {
    const before = stops[index] ?? stop;
    const middle = (before.x + stop.x) / 2;
    path += before.y === stop.y ? `L${at(turn(stop))}` : `C${at(turn({ x: middle, y: before.y }))} ${at(turn({ x: middle, y: stop.y }))} ${at(turn(stop))}`;
  }
  return { path, head: tip(turn(end), turn({ x: 1, y: 0 })) };
}

/** An edge of a cycle, which leads back: around the foot of the nodes. */
function backwards(from: Point, to: Point, half: number, turn: (point: Point) => Point): { path: string; head: string } {
  const [start, end] = [from.y + half, to.y + half];
  const below = Math.max(start, end) + ROW_GAP / 2;
  const path = `M${at(turn({ x: from.x, y: start }))}C${at(turn({ x: from.x, y: below }))} ${at(turn({ x: to.x, y: below }))} ${at(turn({ x: to.x, y: end + TIP }))}`;
  return { path, head: tip(turn({ x: to.x, y: end }), turn({ x: 0, y: -1 })) };
}

function at({ x, y }: Point): string {
  return `${x.toFixed(1)} ${y.toFixed(1)}`;
}

function tip(end: Point, towards: Point): string {
  const back = { x: end.x - towards.x * TIP * 1.4, y: end.y - towards.y * TIP * 1.4 };
  const side = { x: -towards.y * TIP * 0.65, y: towards.x * TIP * 0.65 };
  return `M${at(end)}L${at({ x: back.x + side.x, y: back.y + side.y })}L${at({ x: back.x - side.x, y: back.y - side.y })}z`;
}

/** Adds the nodes that no edge names below the others. */
function withApart(layout: Layout, keys: readonly string[], size: Size, room: number): Layout {
  if (keys.length === 0) return layout;
  const wide = Math.max(layout.width, Math.min(room / scaleIn(layout, room), room));
  const columns = Math.min(keys.length, Math.max(1, Math.floor((wide - 2 * MARGIN + BESIDE) / (size.width + BESIDE))));
  const places = new Map(layout.places);
  for (const [index, key] of keys.entries()) {
    places.set(key, {
      x: MARGIN + size.width / 2 + (index % columns) * (size.width + BESIDE),
      y: layout.height + CAPTION + size.height / 2 + Math.floor(index / columns) * (size.height + BESIDE),
    });
  }
  const rows = Math.ceil(keys.length / columns);
  return {
    ...layout,
    width: Math.max(layout.width, columns * (size.width + BESIDE) - BESIDE + 2 * MARGIN),
    height: layout.height + CAPTION + rows * (size.height + BESIDE) - BESIDE + MARGIN,
    places,
    apart: layout.height,
  };
}
