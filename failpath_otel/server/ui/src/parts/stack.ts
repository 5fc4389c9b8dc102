// A stack as groups of lines: what is the application's own, and what is of libraries and may be folded. Pure.
export interface Part {
  lines: string[];
  /** True for lines of libraries. */
  foreign: boolean;
}

/** Paths of code that an application did not write, by the habits of Python, Node, the JVM, Go and .NET. */
const FOREIGN =
  /[\\/](?:site-packages|dist-packages|node_modules|lib[\\/]python\d[\d.]*|go[\\/]pkg[\\/]mod|usr[\\/]local[\\/]go[\\/]src)[\\/]|<frozen |\(node:|\bnode:internal\b|^\s+at (?:java|javax|jdk|sun|org\.springframework|org\.apache|io\.netty)\.|^\s+at (?:System|Microsoft)\./;
/** The line that begins a frame: what follows, deeper or a caret line, belongs to it. */
const FRAME = /^\s*(?:File "|at |\S.*:\d+)/;
/** Fewer lines are not worth a fold. */
const LEAST = 4;

export function partsOf(stack: string): Part[] {
  const parts: Part[] = [];
  let foreign = false;
  for (const line of stack.replaceAll("\r\n", "\n").trimEnd().split("\n")) {
    // A line at the margin is a heading or the error itself, never a frame's own.
    if (FRAME.test(line)) foreign = FOREIGN.test(line);
    else if (!/^\s/.test(line)) foreign = false;
    const last = parts.at(-1);
    if (last && last.foreign === foreign) last.lines.push(line);
    else parts.push({ lines: [line], foreign });
  }
  // All of it foreign, or little of it: nothing is folded.
  if (parts.every((part) => part.foreign || part.lines.every((line) => !FRAME.test(line)))) return [{ lines: parts.flatMap(({ lines }) => lines), foreign: false }];
  return joined(parts.map((part) => (part.lines.length < LEAST ? { ...part, foreign: false } : part)));
}

function joined(parts: readonly Part[]): Part[] {
  const out: Part[] = [];
  for (const part of parts) {
    const last = out.at(-1);
    if (last && last.foreign === part.foreign) last.lines.push(...part.lines);
    else out.push({ ...part, lines: [...part.lines] });
  }
  return out;
}

/** The frame of the application nearest to the error, on one line; null where the stack names none. */
export function culprit(stack: string): string | null {
  const lines = stack.replaceAll("\r\n", "\n").split("\n");
  const python = /^\s*File "/;
  const own = lines.map((line, index) => ({ line, index })).filter(({ line }) => (python.test(line) || /^\s+at /.test(line)) && !FOREIGN.test(line));
  const frame = lines.some((line) => python.test(line)) ? own.findLast(({ line }) => python.test(line)) : own[0];
  return frame ? frame.line.trim() : null;
}
