// The detection models that agents bring along: what each looks for, and what it found; as a list,
// or laid over ATT&CK.
import { SegmentedControl } from "@mantine/core";
import { useMemo } from "react";
import { useTranslation } from "react-i18next";
import { Link } from "react-router";
import { useModels } from "../../api/queries";
import { LEVELS, type Model } from "../../api/types";
import { useParam } from "../../parts/address";
import { Choose, Find } from "../../parts/Filter";
import { Level } from "../../parts/Marks";
import { Empty, Failure, Waiting } from "../../parts/Notice";
import { Period, usePeriod } from "../../parts/Period";
import { Plain } from "../../parts/Plain";
import { rowsOf } from "../../parts/rowsOf";
import { Table, type Column } from "../../parts/Table";
import { exact, Time } from "../../parts/Time";
import { Matrix } from "./Matrix";

const USUAL = "30d";

function useColumns(): Column<Model>[] {
  const { t, i18n } = useTranslation();
  return useMemo(() => {
    const tactics = (model: Model) => model.tactics.map((tactic) => t(`tactic.${tactic}`, { defaultValue: tactic })).join(", ");
    return [
      { key: "level", label: t("alerts.level"), width: "104px", phone: true, cell: (m) => <Level level={m.level} />, text: (m) => m.level },
      { key: "title", label: t("models.title"), width: "minmax(150px, 2fr)", phone: true, cell: (m) => <Plain text={m.title} most={120} />, text: (m) => m.title },
      { key: "attack", label: t("alerts.attack"), width: "minmax(90px, 1fr)", cell: (m) => m.attack.join(" "), text: (m) => m.attack.join(" ") },
      { key: "tactics", label: t("models.tactics"), width: "minmax(130px, 2fr)", cell: tactics, text: tactics },
      { key: "sources", label: t("models.sources"), width: "minmax(100px, 1fr)", cell: (m) => m.sources.join(" "), text: (m) => m.sources.join(" "), extra: true },
      { key: "simulation", label: t("models.simulation"), width: "minmax(120px, 1fr)", cell: (m) => <span className="mono">{m.simulation?.name ?? ""}</span>, text: (m) => m.simulation?.name ?? "" },
      { key: "fires", label: t("models.fires"), width: "66px", cell: (m) => <span className="number">{m.fires}</span>, text: (m) => String(m.fires) },
      { key: "blind", label: t("models.blind"), width: "86px", cell: (m) => <span className="number">{m.blind || ""}</span>, text: (m) => String(m.blind) },
      { key: "off", label: t("models.off"), width: "66px", cell: (m) => <span className="number">{m.off || ""}</span>, text: (m) => String(m.off) },
      { key: "alerts", label: t("models.alerts"), width: "66px", cell: (m) => <span className="number">{m.alerts}</span>, text: (m) => String(m.alerts) },
      { key: "open", label: t("models.open"), width: "66px", cell: (m) => <span className="number">{m.open}</span>, text: (m) => String(m.open) },
      { key: "last", label: t("models.last"), width: "106px", phone: true, cell: (m) => <Time ms={m.last_ms} />, text: (m) => (m.last_ms ? exact(m.last_ms, i18n.language) : "") },
    ];
  }, [t, i18n.language]);
}

export default function ModelsPage() {
  const { t } = useTranslation();
  const [view, setView] = useParam("view", "list");
  const [level] = useParam("level");
  const [text] = useParam("text");
  const [, span] = usePeriod(USUAL);
  const models = useModels({ ...span });
  const columns = useColumns();
  const wanted = text.toLowerCase();
  const rows = rowsOf(models, (model) =>
    (!level || model.level === level) && `${model.title} ${model.attack.join(" ")} ${model.description}`.toLowerCase().includes(wanted));
  return (
    <div className={view === "matrix" ? "page" : "page full"}>
      <header className="head">
        <h1>{t("menu.models")}</h1>
        <div className="actions">
          <SegmentedControl size="xs" value={view} onChange={setView} aria-label={t("models.view")}
            data={[{ value: "list", label: t("models.list") }, { value: "matrix", label: t("models.matrix") }]} />
          <Period usual={USUAL} />
        </div>
      </header>
      {view !== "matrix" ? (
        <Table name="models" label={t("menu.models")} rows={rows} columns={columns} open={(model) => `/models/${model.id}`}
          tools={
            <>
              <Find label={t("models.find")} />
              <Choose name="level" label={t("alerts.level")} any={t("level.any")}
                options={LEVELS.map((value) => ({ value, label: t(`level.${value}`) }))} />
            </>
          }
          empty={
            <Empty title={t("models.noMatch")} hint={t("models.noMatchHint")}>
              <Link to="/models">{t("alerts.reset")}</Link>
            </Empty>
          } />
      ) : models.isPending ? (
        <Waiting />
      ) : models.data ? (
        <Matrix models={models.data} />
      ) : (
        <Failure error={models.error} retry={() => void models.refetch()} />
      )}
    </div>
  );
}
