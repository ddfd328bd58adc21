// What admins do: users, enrollment tokens, notification channels, the audit log. A part a tab, each
// with an address of its own.
import { useTranslation } from "react-i18next";
import { NavLink, useParams } from "react-router";
import { Empty } from "../../parts/Notice";
import { useRole } from "../../shell/session";
import { Audit } from "./Audit";
import { Channels } from "./Channels";
import { Enrollment } from "./Enrollment";
import { Users } from "./Users";

const PARTS = ["users", "enrollment", "notifications", "audit"] as const;

export default function AdminPage() {
  const { t } = useTranslation();
  const { admin } = useRole();
  const { part = "users" } = useParams();
  if (!admin) return <Empty title={t("admin.notYou")} hint={t("admin.notYouHint")} />;
  return (
    <div className="page full">
      <header className="head tabs-head">
        <h1>{t("menu.admin")}</h1>
        <nav className="tabs" aria-label={t("menu.admin")}>
          {PARTS.map((one) => (
            <NavLink key={one} to={`/admin/${one}`} className={one === part ? "active" : ""} {...(one === part ? { "aria-current": "page" as const } : {})}>
              {t(`admin.${one}`)}
            </NavLink>
          ))}
        </nav>
      </header>
      {part === "users" ? <Users /> : part === "enrollment" ? <Enrollment /> : part === "notifications" ? <Channels /> : part === "audit" ? <Audit /> : (
        <Empty title={t("frame.nothing")} hint={t("frame.nothingHint")} />
      )}
    </div>
  );
}
