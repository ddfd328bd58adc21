// What people do with alerts, by the API, one or many.
import { notifications } from "@mantine/notifications";
import { useTranslation } from "react-i18next";
import { patch } from "../../api/client";
import { queries } from "../../api/queries";
import type { Alert } from "../../api/types";
import { useReason } from "../../parts/Notice";
import { useRole } from "../../shell/session";

export interface Edit {
  state?: string;
  resolution?: string;
  assignee?: string;
}

export function useEdit() {
  const { t } = useTranslation();
  const reason = useReason();
  const { name } = useRole();
  const edit = async (alerts: Alert[], change: Edit) => {
    const failed: string[] = [];
    for (const alert of alerts) {
      try {
        await patch(`/api/v1/alerts/${alert.id}`, change);
      } catch (error) {
        failed.push(reason(error));
      }
      void queries.invalidateQueries({ queryKey: ["alert", alert.id] });
    }
    const done = alerts.length - failed.length;
    if (done) notifications.show({ message: t("alerts.changed", { count: done }) });
    if (failed.length) notifications.show({ color: "red", title: t("alerts.notChanged", { count: failed.length }), message: failed[0] });
  };
  return { edit, take: (alerts: Alert[]) => edit(alerts, { state: "in_progress", assignee: name }) };
}
