// The WebSocket of a shell's terminal: what it says, and the way back when it breaks.
//
// The manager shows the last part again to whoever joins, so each connection begins with an empty
// screen. What is typed while there is none is dropped, and the reader is told.
import { get } from "../../api/client";
import type { Task } from "../../api/types";
import { Reader } from "./text";

/** Between two attempts, ms: the first pause, and the longest. */
const PAUSE = 500;
const LONGEST = 5_000;
/** Characters of one message: the manager takes 64 KiB, and one may be four bytes. */
const PART = 8_192;

export interface Person {
  name: string;
  writes: boolean;
}

export interface Told {
  state: "joining" | "open" | "lost" | "closed";
  writes: boolean;
  people: Person[];
  size: [number, number] | null;
  /** How it ended. */
  why: string;
}

interface Ears {
  shown: (text: string) => void;
  /** A new connection: all is shown anew. */
  anew: () => void;
  told: (told: Told) => void;
}

const NOBODY: Told = { state: "joining", writes: false, people: [], size: null, why: "" };

export class Wire {
  private socket: WebSocket | null = null;
  private timer: ReturnType<typeof setTimeout> | null = null;
  private pause = PAUSE;
  private told = NOBODY;
  private left = false;

  constructor(
    private readonly id: string,
    private readonly ears: Ears,
  ) {
    this.join();
  }

  /** False where it is not sent. */
  type(text: string): boolean {
    if (this.socket?.readyState !== WebSocket.OPEN || !this.told.writes) return false;
    const encoder = new TextEncoder();
    // Cut between characters, not within one.
    const signs = [...text];
    for (let from = 0; from < signs.length; from += PART) this.socket.send(encoder.encode(signs.slice(from, from + PART).join("")));
    return true;
  }

  resize(columns: number, rows: number) {
    if (this.socket?.readyState === WebSocket.OPEN && this.told.writes) this.socket.send(JSON.stringify({ resize: [columns, rows] }));
  }

  /** Nobody looks any more; the shell stays open. */
  leave() {
    this.left = true;
    if (this.timer) clearTimeout(this.timer);
    const socket = this.socket;
    // One that is not open yet is closed when it is: a browser takes the other for a fault.
    if (socket?.readyState === WebSocket.CONNECTING) socket.onopen = () => socket.close();
    else socket?.close();
  }

  private tell(change: Partial<Told>) {
    this.told = { ...this.told, ...change };
    if (!this.left) this.ears.told(this.told);
  }

  private join() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/api/v1/shells/${encodeURIComponent(this.id)}/terminal`);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    const reader = new Reader();
    socket.onopen = () => {
      this.pause = PAUSE;
      this.ears.anew();
      this.tell({ state: "open" });
    };
    socket.onmessage = ({ data }: MessageEvent<ArrayBuffer | string>) => {
      if (typeof data === "string") this.hear(data);
      else if (!this.left) this.ears.shown(reader.read(data));
    };
    socket.onclose = () => {
      if (this.left || this.told.state === "closed") return;
      this.tell({ state: this.told.state === "joining" ? "joining" : "lost", writes: false, people: [] });
      this.timer = setTimeout(() => void this.again(), this.pause);
      this.pause = Math.min(LONGEST, this.pause * 2);
    };
  }

  private hear(text: string) {
    const said = JSON.parse(text) as { writes?: boolean; people?: Person[]; size?: [number, number]; closed?: string };
    if (said.writes !== undefined) this.tell({ writes: said.writes });
    if (said.people) this.tell({ people: said.people });
    if (said.size) this.tell({ size: said.size });
    if (said.closed !== undefined) this.tell({ state: "closed", writes: false, people: [], why: said.closed });
  }

  /** A shell that has ended meanwhile is joined no more. */
  private async again() {
    try {
      const task = await get<Task>(`/api/v1/tasks/${encodeURIComponent(this.id)}`);
      if (this.left) return;
      if (task.ended_ms) {
        this.tell({ state: "closed", why: task.observed });
        return;
      }
    } catch {
      // The manager is away: the next attempt shows it.
    }
    if (!this.left) this.join();
  }
}
