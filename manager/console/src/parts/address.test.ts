import { expect, it } from "vitest";
import { span } from "./address";

it("reads a period of the address, and nothing that is none", () => {
  expect(span("24h", 86_400_000)).toEqual({ from_ms: 0, until_ms: null });
  expect(span("all", 5)).toEqual({ from_ms: 0, until_ms: null });
  expect(span("10-20", 5)).toEqual({ from_ms: 10, until_ms: 20 });
  for (const text of ["20-10", "x", "", "1y", "-1-5", "1e3-2e3"]) expect(span(text, 5)).toBeNull();
});
