// Which of a list is open, as the address has it.
import { useSearchParams } from "react-router";

/** What of a list is open, by a word of the address. */
export function useOpened(): { opened: string; open: (id: string) => string; set: (id: string) => void } {
  const [params, setParams] = useSearchParams();
  const open = (id: string) => {
    const next = new URLSearchParams(params);
    next.set("open", id);
    return `?${next}`;
  };
  const set = (id: string) =>
    setParams((before) => {
      const next = new URLSearchParams(before);
      if (id) next.set("open", id);
      else next.delete("open");
      return next;
    });
  return { opened: params.get("open") ?? "", open, set };
}
