// Files a response task for one host, and says where it can be looked at.
import { notifications } from "@mantine/notifications";
import { useTranslation } from "react-i18next";
import { Link } from "react-router";
import { postOnce } from "../api/client";
import { queries } from "../api/queries";
import type { Action, Task } from "../api/types";
import { useReason } from "./Notice";

export function useFile() {
  const { t } = useTranslation();
  const explain = useReason();
  return async (host: string, action: Action, reason: string): Promise<Task | null> => {
    try {
      const task = await postOnce<Task>("/api/v1/tasks", { host, action, reason });
      notifications.show({
        message: (
          <span>
            {t("order.filed", { count: 1 })} <Link to={`/tasks/${task.id}`}>{t("order.look")}</Link>
          </span>
        ),
      });
      void queries.invalidateQueries({ queryKey: ["tasks"] });
      return task;
    } catch (error) {
      notifications.show({ color: "red", autoClose: false, title: t("order.refused"), message: explain(error) });
      return null;
    }
  };
}
