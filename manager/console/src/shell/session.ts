// Who is signed in, and what that role may do. The API decides; this only spares the reader what he
// would be refused.
import { createContext, useContext } from "react";
import type { Session } from "../api/types";

export const SessionContext = createContext<Session | null>(null);

const ROLES = ["viewer", "operator", "admin"];

export function useRole() {
  const session = useContext(SessionContext);
  const rank = ROLES.indexOf(session?.role ?? "");
  return { name: session?.name ?? "", role: session?.role ?? "", operator: rank >= 1, admin: rank >= 2, shell: rank >= 1 && (session?.may_shell ?? false) };
}
