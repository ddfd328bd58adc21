// Files response tasks, one after the other, and tells what came of it. The password of a zip is known
// to nobody but the host once its task is filed: this page keeps it until it is loaded again.
import { notifications } from "@mantine/notifications";
import { createElement, useState } from "react";
import { useTranslation } from "react-i18next";
import { Link } from "react-router";
import { postOnce, Problem } from "../api/client";
import { queries } from "../api/queries";
import type { Action, Task } from "../api/types";
import { useReason } from "./Notice";
import { visible } from "./visible";

export interface Filing {
  place: { host_id: string; host: string; alert?: string };
  action: Action;
}

/** Refusals that are named. */
const NAMES = 8;

const passwords = new Map<string, string>();
/** What the zip of a task opens with, where it was ordered from here. */
export const passwordOf = (task: string) => passwords.get(task);

export function useOrders() {
  const { t } = useTranslation();
  const explain = useReason();
  const [busy, setBusy] = useState(false);
  /** Whether anything was filed. */
  const file = async (orders: Filing[], why: string): Promise<boolean> => {
    setBusy(true);
    const filed: Task[] = [];
    const failed: string[] = [];
    for (const { place, action } of orders) {
      const body = { host: place.host_id, action, reason: why.trim(), alert: place.alert ?? null };
      try {
        const task = await postOnce<Task>("/api/v1/tasks", body);
        if (typeof action.password === "string") passwords.set(task.id, action.password);
        filed.push(task);
      } catch (error) {
        failed.push(`${visible(place.host)}: ${explain(error)}`);
        if (error instanceof Problem && error.status === 401) break;
      }
    }
    setBusy(false);
    const [first] = filed;
    if (first) {
      const to = filed.length === 1 ? `/tasks/${first.id}` : "/tasks";
      const message = createElement("span", null, t("order.filed", { count: filed.length }), " ", createElement(Link, { to }, t("order.look")));
      notifications.show({ message });
      void queries.invalidateQueries({ queryKey: ["alert"] });
      void queries.invalidateQueries({ queryKey: ["tasks"] });
    }
    if (failed.length) notifications.show({ color: "red", autoClose: false, title: t("order.refused"), message: failed.slice(0, NAMES).join("\n") });
    return filed.length > 0 || failed.length === 0;
  };
  return { busy, file };
}
