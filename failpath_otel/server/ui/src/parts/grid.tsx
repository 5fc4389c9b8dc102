// Steps × runs, the newest run first: which step fails across runs is seen at a glance. Only the columns in view are drawn.
import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { FlowNode, GridRun } from "../api";
import { useUtc } from "../preferences";
import { lookOf, Mark, type Look, STEP_LOOKS } from "../status";
import { duration, Id, moment, plain } from "../text";
import { link, navigate, runLink } from "../url";

const COLUMN = 20;
const ROW = 26;
const MARK = 14;
const AROUND = 10;
const LOOKS: readonly Look[] = [...STEP_LOOKS, "incomplete"];

interface At {
  runId: string;
  row: number;
}

interface Props {
  flow: string;
  nodes: readonly FlowNode[];
  runs: readonly GridRun[];
  step: string | null;
}

/** Row 0 is the run as a whole, the others are its steps. */
export function Grid({ flow, nodes, runs, step }: Props): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  const [view, setView] = useState({ left: 0, width: 1200 });
  const [active, setActive] = useState<At | null>(null);
  const [hovered, setHovered] = useState<At | null>(null);
  const look = () => box.current && setView({ left: box.current.scrollLeft, width: box.current.clientWidth });
  useEffect(() => {
    look();
    const observer = new ResizeObserver(look);
    if (box.current) observer.observe(box.current);
    return () => observer.disconnect();
  }, []);
  useKeptScroll(box, runs);

  const columns = new Map(runs.map((run, column) => [run.runId, column]));
  const from = Math.max(0, Math.floor(view.left / COLUMN) - AROUND);
  const to = Math.min(runs.length, Math.ceil((view.left + view.width) / COLUMN) + AROUND);
  const current = active && columns.has(active.runId) ? active : null;
  const shown = hovered && columns.has(hovered.runId) ? hovered : current;
  const shownColumn = shown ? columns.get(shown.runId) : undefined;
  const rows = nodes.length + 1;

  const move = (event: KeyboardEvent) => {
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], Home: [-runs.length, 0], End: [runs.length, 0] }[event.key];
    if (event.key === "Enter" && current) return open(current);
    if (!by) return;
    event.preventDefault();
    const column = current ? (columns.get(current.runId) ?? 0) : -Math.sign(by[0] ?? 0);
    const next = Math.min(Math.max(column + (by[0] ?? 0), 0), runs.length - 1);
    const row = Math.min(Math.max((current?.row ?? 0) + (by[1] ?? 0), 0), rows - 1);
    const run = runs[next];
    if (!run) return;
    setActive({ runId: run.runId, row });
    const [start, end] = [next * COLUMN, (next + 1) * COLUMN];
    if (box.current && start < box.current.scrollLeft) box.current.scrollLeft = start - COLUMN;
    else if (box.current && end > box.current.scrollLeft + box.current.clientWidth) box.current.scrollLeft = end + COLUMN - box.current.clientWidth;
  };
  const open = (at: At) => navigate(runLink(flow, at.runId, { step: nodes[at.row - 1]?.stepKey }));
  const under = (event: MouseEvent): At | null => {
    const area = (event.currentTarget as Element).getBoundingClientRect();
    const run = runs[Math.floor((event.clientX - area.left) / COLUMN)];
    const row = Math.floor((event.clientY - area.top) / ROW);
    return run && row < rows ? { runId: run.runId, row } : null;
  };
  const atOf = (row: number, column: number) => `grid-${row}-${column}`;

  return (
    <div class="grid">
      <div class="grid-body sheet">
        <ul class="grid-labels" aria-hidden="true">
          <li class="quiet">run</li>
          {nodes.map((node) => (
            <li key={node.stepKey} class={node.stepKey === step ? "chosen" : ""}>
              <a href={link("/flow", { flow, step: node.stepKey })} tabIndex={-1} title={plain(node.stepKey)}>
                <Id text={node.label} />
              </a>
            </li>
          ))}
        </ul>
        <div
          class="grid-box"
          ref={box}
          role="grid"
          aria-label="Steps and runs, the newest run first"
          aria-rowcount={rows}
          aria-colcount={runs.length}
          tabIndex={0}
          {...(current ? { "aria-activedescendant": atOf(current.row, columns.get(current.runId) ?? 0) } : {})}
          onScroll={look}
          onKeyDown={move}
          onFocus={() => !current && runs[0] && setActive({ runId: runs[0].runId, row: 0 })}
        >
          <svg
            width={runs.length * COLUMN}
            height={rows * ROW}
            role="presentation"
            onMouseMove={(event) => setHovered(under(event))}
            onMouseLeave={() => setHovered(null)}
            onClick={(event) => {
              const at = under(event);
              if (at) open(at);
            }}
          >
            <defs>
              {LOOKS.map((name) => (
                <symbol key={name} id={`grid-mark-${name}`} viewBox="0 0 16 16" overflow="visible">
                  <Mark look={name} />
                </symbol>
              ))}
            </defs>
            {shownColumn !== undefined && <rect class="grid-column" x={shownColumn * COLUMN} width={COLUMN} height={rows * ROW} />}
            {Array.from({ length: rows }, (_, row) => (
              <g key={row} role="row" aria-rowindex={row + 1} aria-label={row === 0 ? "run" : plain(nodes[row - 1]?.label ?? "")}>
                {runs.slice(from, to).map((run, n) => {
                  const column = from + n;
                  const cell = lookAt(run, nodes, row);
                  const isActive = current?.runId === run.runId && current.row === row;
                  return (
                    <g key={run.runId} role="gridcell" id={atOf(row, column)} aria-colindex={column + 1} aria-label={`${plain(run.runId)}: ${cell ?? "not declared, not reported"}`}>
                      {isActive && <rect class="grid-active" x={column * COLUMN + 1} y={row * ROW + 1} width={COLUMN - 2} height={ROW - 2} rx="3" />}
                      {cell && <use href={`#grid-mark-${cell}`} x={column * COLUMN + (COLUMN - MARK) / 2} y={row * ROW + (ROW - MARK) / 2} width={MARK} height={MARK} />}
                    </g>
                  );
                })}
              </g>
            ))}
          </svg>
        </div>
      </div>
      <Described at={shown} runs={runs} nodes={nodes} />
    </div>
  );
}

/** What stands in a cell; nothing where a step that is not declared did not report, for such a step cannot be missing. */
function lookAt(run: GridRun, nodes: readonly FlowNode[], row: number): Look | null {
  if (row === 0) return lookOf(run);
  const cell = run.cells[row - 1] ?? "missing";
  return cell === "missing" && nodes[row - 1]?.discovered ? null : cell;
}

/** What is under the pointer or chosen by the keyboard, in words; always one line high. */
function Described({ at, runs, nodes }: { at: At | null; runs: readonly GridRun[]; nodes: readonly FlowNode[] }): JSX.Element {
  const utc = useUtc();
  const run = at && runs.find(({ runId }) => runId === at.runId);
  if (!at || !run) return <p class="grid-detail quiet">Point at a mark, or use the arrow keys; Enter opens the run.</p>;
  const node = nodes[at.row - 1];
  const look = lookAt(run, nodes, at.row);
  const { date, clock } = moment(run.startedAt, utc);
  return (
    <p class="grid-detail">
      <code>
        <Id text={run.runId} />
      </code>{" "}
      {node && (
        <>
          <Id text={node.label} />{" "}
        </>
      )}
      {look ? <strong class={`is-${look}`}>{look}</strong> : <span class="quiet">did not report this step, which is not declared</span>}
      {run.firstError && (at.row === 0 || run.firstError.stepKey === node?.stepKey) && (
        <>
          {" "}
          {at.row === 0 && (
            <>
              at <Id text={run.firstError.stepKey} />:{" "}
            </>
          )}
          <Id text={run.firstError.name} />
          {run.firstError.message && (
            <>
              : <Id text={run.firstError.message} />
            </>
          )}
        </>
      )}{" "}
      <span class="quiet">
        {date} {clock}
        {run.durationMs !== null && `, ${duration(run.durationMs)}`}
      </span>
    </p>
  );
}

/** New runs come in at the left; what someone has scrolled to stays where it is. */
function useKeptScroll(box: { current: HTMLDivElement | null }, runs: readonly GridRun[]): void {
  const first = useRef<string | undefined>(undefined);
  useLayoutEffect(() => {
    const before = first.current;
    first.current = runs[0]?.runId;
    const added = before === undefined ? 0 : runs.findIndex(({ runId }) => runId === before);
    if (box.current && added > 0 && box.current.scrollLeft > 0) box.current.scrollLeft += added * COLUMN;
  }, [runs]);
}
