// What of ATT&CK the shipped models cover: tactics beside each other, their techniques below. A
// technique stands under every tactic that its models name.
import { useTranslation } from "react-i18next";
import { Link } from "react-router";
import type { Model } from "../../api/types";
import { Card } from "../../parts/Facts";
import { Plain } from "../../parts/Plain";

/** In ATT&CK's own order. */
const TACTICS = [
  "reconnaissance", "resource-development", "initial-access", "execution", "persistence", "privilege-escalation",
  "defense-evasion", "credential-access", "discovery", "lateral-movement", "collection", "command-and-control", "exfiltration", "impact",
] as const;

export function Matrix({ models }: { models: Model[] }) {
  const { t } = useTranslation();
  const columns = TACTICS.map((tactic) => {
    const techniques = new Map<string, Model[]>();
    for (const model of models.filter((one) => one.tactics.includes(tactic)))
      for (const id of model.attack) techniques.set(id, [...(techniques.get(id) ?? []), model]);
    return { tactic, techniques: [...techniques].sort(([a], [b]) => a.localeCompare(b)) };
  });
  const covered = columns.filter((column) => column.techniques.length > 0);
  const bare = columns.filter((column) => column.techniques.length === 0);
  const all = new Set(models.flatMap((model) => model.attack)).size;
  return (
    <Card title={t("models.coverage")} side={<span className="dim">{t("models.techniques", { count: all })}</span>}>
      <div className="matrix">
        {covered.map(({ tactic, techniques }) => (
          <section key={tactic} aria-label={t(`tactic.${tactic}`)}>
            <h3>
              {t(`tactic.${tactic}`)} <span className="dim">{techniques.length}</span>
            </h3>
            {techniques.map(([id, of]) => (
              <div key={id} className={`technique ${of.some((model) => model.open > 0) ? "open" : of.some((model) => model.alerts > 0) ? "fired" : ""}`}>
                <span className="mono dim">{id}</span>
                {of.map((model) => (
                  <Link key={model.id} to={`/models/${model.id}`}>
                    <Plain text={model.title} most={80} />
                    {model.alerts > 0 && <span className="unseen">{t("models.fired", { count: model.alerts })}</span>}
                    {model.alerts > 0 && <b aria-hidden="true">{model.alerts}</b>}
                  </Link>
                ))}
              </div>
            ))}
          </section>
        ))}
      </div>
      <p className="hint dim">
        <span className="technique key open" aria-hidden="true" /> {t("models.keyOpen")}{" "}
        <span className="technique key fired" aria-hidden="true" /> {t("models.keyFired")}{" "}
        {t("models.bare", { list: bare.map(({ tactic }) => t(`tactic.${tactic}`)).join(", ") })}
      </p>
    </Card>
  );
}
