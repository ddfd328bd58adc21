// Keys of the whole page: `g` and a letter goes somewhere, `/` finds, `?` tells of all.
import { useEffect, useRef } from "react";
import { useNavigate } from "react-router";
import { ROUTES } from "../routes";

/** How long after `g` a letter still counts, ms. */
const PATIENCE = 1_500;

function typing(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));
}

export function useKeys(help: () => void) {
  const navigate = useNavigate();
  const went = useRef(0);
  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
      if (typing(event.target) || document.querySelector('[role="dialog"]')) return;
      const after = performance.now() - went.current < PATIENCE && went.current > 0;
      went.current = 0;
      if (after) {
        const route = ROUTES.find((one) => one.menu?.key === event.key);
        if (route) void navigate(route.path);
      } else if (event.key === "g") went.current = performance.now();
      else if (event.key === "?") help();
      else if (event.key === "/") document.querySelector<HTMLInputElement>("[data-find]")?.focus();
      else if (event.key === "j" || event.key === "ArrowDown") document.querySelector<HTMLElement>("[data-table]")?.focus();
      else return;
      event.preventDefault();
    };
    document.addEventListener("keydown", pressed);
    return () => document.removeEventListener("keydown", pressed);
  }, [help, navigate]);
}
