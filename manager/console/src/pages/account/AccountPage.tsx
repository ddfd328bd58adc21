// One's own account: password, second factor, API tokens.
import { useTranslation } from "react-i18next";
import { Plain } from "../../parts/Plain";
import { useRole } from "../../shell/session";
import { Password } from "./Password";
import { SecondFactor } from "./SecondFactor";
import { Tokens } from "./Tokens";

export default function AccountPage() {
  const { t } = useTranslation();
  const { name, role } = useRole();
  return (
    <div className="page">
      <header className="head">
        <div className="title">
          <h1>{t("account.title")}</h1>
          <p className="dim">
            <Plain text={name} most={80} /> · {t(`role.${role}`)}
          </p>
        </div>
      </header>
      <div className="two">
        <Password />
        <SecondFactor />
      </div>
      <Tokens />
    </div>
  );
}
