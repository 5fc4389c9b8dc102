// The steps of a flow as a graph: each with its mark, and lines to those that come after. It stays as it is while its numbers change.
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type { EdgeRow } from "../api";
import { Mark, type Look } from "../status";
import { plain } from "../text";
import { type Layout, place, type Point, scaleIn, type Size } from "./layout";

export interface GraphNode {
  key: string;
  label: string;
  look: Look;
  /** Small text below the label, a line each: counts, a duration, a reason. */
  lines: readonly string[];
  /** The share of failures, 0 to 1: a bar along the node's foot. */
  weight?: number;
}

interface Props {
  nodes: readonly GraphNode[];
  edges: readonly EdgeRow[];
  selected?: string | null;
  /** Without it the graph is a picture: nothing in it can be focused. */
  onSelect?: (key: string) => void;
  /** For how many lines each node has room; it does not change with what they say, so that nothing moves. */
  rows?: number;
  /** The room, where it cannot be measured. */
  width?: number;
}

const PAD = 11;
const MARK = 15;
const LINE = 16;
const LABEL_FONT = "600 13px";
const LINE_FONT = "400 11.5px";

export function Graph({ nodes, edges, selected = null, onSelect, rows = 2, width }: Props): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  const room = useRoom(box, width);
  const [focused, setFocused] = useState<string | null>(null);
  const topology = JSON.stringify([nodes.map(({ key, label }) => [key, label]), edges.map(({ source, target }) => [source, target]), rows]);
  const size = useMemo(() => sizeOf(nodes, rows), [topology]);
  const layout = useMemo(
    () => place(nodes.map(({ key }) => key), edges, size, room),
    [topology, size, room],
  );
  const scale = scaleIn(layout, room);
  useSight(box, selected === null ? undefined : layout.places.get(selected), size, scale);

  useLayoutEffect(() => {
    // Who has no pointer scrolls what does not fit by the keyboard.
    const own = box.current;
    own?.toggleAttribute("tabindex", own.scrollWidth > own.clientWidth || own.scrollHeight > own.clientHeight);
    if (own?.hasAttribute("tabindex")) own.tabIndex = 0;
  }, [layout, scale]);

  const known = new Map(nodes.map((node) => [node.key, node]));
  const stop = [focused, selected].find((key) => key !== null && known.has(key)) ?? nodes[0]?.key;
  const move = (event: KeyboardEvent, from: string) => {
    const next = towards(event.key, from, layout);
    if (next === undefined) return;
    event.preventDefault();
    if (next !== null) box.current?.querySelector<SVGElement>(`[data-node="${[...known.keys()].indexOf(next)}"]`)?.focus();
  };
  const reported = (key: string) => known.get(key)?.look !== "missing";
  return (
    <div class="graph sheet" ref={box} role="group" aria-label="Steps in their order" {...(onSelect ? {} : { "data-picture": "" })}>
      <svg width={layout.width * scale} height={layout.height * scale} viewBox={`0 0 ${layout.width} ${layout.height}`} role="presentation">
        <g class={layout.ordered ? "edges is-order" : "edges"} aria-hidden="true">
          {layout.lines.map(({ source, target, path, head }) => (
            <g key={`${source.length} ${source}${target}`} class={reported(source) && reported(target) ? "edge is-taken" : "edge"}>
              <path class="edge-line" d={path} />
              <path class="edge-tip" d={head} />
            </g>
          ))}
        </g>
        {layout.apart !== null && (
          <text class="graph-caption" x={4} y={layout.apart + 22}>
            steps without edges
          </text>
        )}
        {nodes.map((node, index) => (
          <Node
            key={node.key}
            node={node}
            index={index}
            size={size}
            at={layout.places.get(node.key) ?? { x: 0, y: 0 }}
            name={nameOf(node, layout, known)}
            chosen={node.key === selected}
            stops={node.key === stop}
            onSelect={onSelect}
            onFocus={() => setFocused(node.key)}
            onMove={move}
          />
        ))}
      </svg>
    </div>
  );
}

interface NodeProps {
  node: GraphNode;
  index: number;
  size: Size;
  at: Point;
  name: string;
  chosen: boolean;
  stops: boolean;
  onSelect: ((key: string) => void) | undefined;
  onFocus: () => void;
  onMove: (event: KeyboardEvent, from: string) => void;
}

function Node({ node, index, size, at, name, chosen, stops, onSelect, onFocus, onMove }: NodeProps): JSX.Element {
  const { key, label, look, lines, weight = 0 } = node;
  const room = size.width - 2 * PAD;
  const pressed = (event: KeyboardEvent) => {
    if (event.key !== "Enter" && event.key !== " ") return onMove(event, key);
    event.preventDefault();
    onSelect?.(key);
  };
  return (
    <g
      class={`node is-${look}${chosen ? " is-chosen" : ""}`}
      transform={`translate(${at.x - size.width / 2} ${at.y - size.height / 2})`}
      {...(onSelect ? {} : { role: "img" as const, "aria-label": name })}
    >
      <rect class="node-ground" width={size.width} height={size.height} rx="7" />
      {weight > 0 && (
        <g class="node-weight">
          <path d={`M7 ${size.height - 2}H${size.width - 7}`} class="node-weight-all" />
          <path d={`M7 ${size.height - 2}h${Math.max(3, (size.width - 14) * Math.min(1, weight))}`} />
        </g>
      )}
      <svg class="node-mark" aria-hidden="true" x={PAD} y={PAD - 1} width={MARK} height={MARK} viewBox="0 0 16 16" overflow="visible">
        <Mark look={look} />
      </svg>
      <text class="node-label" aria-hidden="true" x={PAD + MARK + 7} y={PAD + 11.5}>
        {cut(plain(label), LABEL_FONT, room - MARK - 7)}
      </text>
      {lines.map((line, row) => (
        <text key={row} class="node-line" aria-hidden="true" x={PAD} y={PAD + 29 + row * LINE}>
          {cut(plain(line), LINE_FONT, room)}
        </text>
      ))}
      {onSelect && (
        <rect
          class={`node-hit is-${look}`}
          data-node={index}
          width={size.width}
          height={size.height}
          rx="7"
          role="button"
          tabIndex={stops ? 0 : -1}
          aria-pressed={chosen}
          aria-label={name}
          onClick={() => onSelect(key)}
          onKeyDown={pressed}
          onFocus={onFocus}
        >
          <title>{name}</title>
        </rect>
      )}
      <rect class="node-ring" x="-3" y="-3" width={size.width + 6} height={size.height + 6} rx="9.5" />
    </g>
  );
}

function nameOf({ key, label, look, lines }: GraphNode, layout: Layout, known: ReadonlyMap<string, GraphNode>): string {
  const before = layout.lines.filter(({ target }) => target === key).map(({ source }) => known.get(source)?.label ?? source);
  const after = before.length > 0 ? `after ${before.join(", ")}` : "";
  return plain([label === key ? label : `${label} (${key})`, look, ...lines.filter((line) => line !== look), after].filter(Boolean).join(", "));
}

/** The node that an arrow key leads to: along an edge where one goes that way, else the nearest; null at the rim, undefined for other keys. */
function towards(pressed: string, from: string, { places, lines }: Layout): string | null | undefined {
  const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[pressed];
  const here = places.get(from);
  if (!way || !here) return undefined;
  const neighbours = new Set(lines.flatMap(({ source, target }) => (source === from ? [target] : target === from ? [source] : [])));
  let best: string | null = null;
  let least = Infinity;
  for (const [key, there] of places) {
    const [dx, dy] = [there.x - here.x, there.y - here.y];
    const along = dx * (way[0] ?? 0) + dy * (way[1] ?? 0);
    const aside = Math.abs(dx * (way[1] ?? 0) + dy * (way[0] ?? 0));
    // The line back to the begin of the next row is followed as well, by the key that leads on.
    if (key === from || along <= 0) continue;
    const cost = along + 2 * aside + (neighbours.has(key) ? -1e6 : 0);
    if (cost < least) [best, least] = [key, cost];
  }
  if (best !== null) return best;
  const forward = pressed === "ArrowRight";
  if (!forward && pressed !== "ArrowLeft") return null;
  return lines.find((line) => (forward ? line.source : line.target) === from)?.[forward ? "target" : "source"] ?? null;
}

/** The width there is for the graph, known before anything is painted. */
function useRoom(box: { current: HTMLDivElement | null }, given: number | undefined): number {
  const [room, setRoom] = useState(given ?? 0);
  useLayoutEffect(() => {
    const element = box.current;
    if (given !== undefined || !element) return undefined;
    const measure = () => {
      const { paddingLeft, paddingRight } = getComputedStyle(element);
      // The bar by which one scrolls down takes room too: without this the graph would shrink and grow by turns.
      const inner = element.offsetWidth - parseFloat(paddingLeft) - parseFloat(paddingRight) - 18;
      if (inner > 0) setRoom(Math.floor(inner));
    };
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, [given]);
  return room || 800;
}

/** Scrolls the box, never the page, to the chosen node when another is chosen. */
function useSight(box: { current: HTMLDivElement | null }, at: Point | undefined, size: Size, scale: number): void {
  useEffect(() => {
    const element = box.current;
    if (!at || !element) return;
    const [left, top] = [(at.x - size.width / 2) * scale, (at.y - size.height / 2) * scale];
    const [right, bottom] = [(at.x + size.width / 2) * scale, (at.y + size.height / 2) * scale];
    const beyond = left < element.scrollLeft || right > element.scrollLeft + element.clientWidth || top < element.scrollTop || bottom > element.scrollTop + element.clientHeight;
    if (beyond) element.scrollTo((left + right - element.clientWidth) / 2, (top + bottom - element.clientHeight) / 2);
  }, [at?.x, at?.y, scale]);
}

function sizeOf(nodes: readonly GraphNode[], rows: number): Size {
  const longest = Math.max(0, ...nodes.map(({ label }) => widthOf(plain(label), LABEL_FONT)));
  return { width: Math.min(214, Math.max(138, Math.ceil(longest) + 2 * PAD + MARK + 9)), height: 2 * PAD + 15 + rows * LINE };
}

const measured = new Map<string, number>();
let pen: CanvasRenderingContext2D | null = null;

function widthOf(text: string, font: string): number {
  const known = measured.get(font + text);
  if (known !== undefined) return known;
  pen ??= document.createElement("canvas").getContext("2d");
  if (!pen) return text.length * 7;
  pen.font = `${font} ${getComputedStyle(document.body).fontFamily}`;
  const width = pen.measureText(text).width;
  // Lines that count up make ever new texts; what is measured is kept for those that stay.
  if (measured.size > 2000) measured.clear();
  measured.set(font + text, width);
  return width;
}

/** As much of the text as fits, with an ellipsis where something is left out. */
function cut(text: string, font: string, room: number): string {
  const short = text.length > 200 ? text.slice(0, 200) : text;
  if (short === text && widthOf(text, font) <= room) return text;
  const characters = Array.from(short);
  let [fits, most] = [0, characters.length];
  while (fits < most) {
    const middle = Math.ceil((fits + most) / 2);
    if (widthOf(`${characters.slice(0, middle).join("").trimEnd()}…`, font) <= room) fits = middle;
    else most = middle - 1;
  }
  return `${characters.slice(0, fits).join("").trimEnd()}…`;
}
