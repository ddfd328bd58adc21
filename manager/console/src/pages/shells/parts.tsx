// What the list of shells and the page of one have in common.
import { useTranslation } from "react-i18next";
import { Link } from "react-router";
import type { Task } from "../../api/types";
import { Icon } from "../../parts/Icon";
import { useRole } from "../../shell/session";

/** How long it was open, ms; nothing while it is, or where it never was. */
export const openFor = ({ delivered_ms: from, ended_ms: until }: Pick<Task, "delivered_ms" | "ended_ms">): number | undefined =>
  from && until ? Math.max(0, until - from) : undefined;

/** Said to whoever may not open shells, where the others have an action. */
export function NotYou() {
  const { t } = useTranslation();
  const { admin } = useRole();
  return (
    <div className="banner told" role="status">
      <Icon name="lock" />
      <span>
        {t("shells.notYou")} {admin ? <Link to="/admin/users">{t("shells.permit")}</Link> : t("shells.askAdmin")}
      </span>
    </div>
  );
}
