// A host that is cut off shows it on every page of its own, with the way back.
import { Button } from "@mantine/core";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { Link } from "react-router";
import { useHost } from "../api/queries";
import { useRole } from "../shell/session";
import { Icon } from "./Icon";
import { OrderDialog, type Order } from "./OrderDialog";
import { visible } from "./visible";

export function Isolation({ host: id }: { host: string | undefined }) {
  const { t } = useTranslation();
  const { operator } = useRole();
  const { data: host } = useHost(id);
  const [order, setOrder] = useState<Order | null>(null);
  if (!host?.isolated) return null;
  return (
    <div className="banner cut" role="status">
      <Icon name="lock" />
      <span>
        <Link to={`/hosts/${host.id}`}>{visible(host.name)}</Link> {t("isolation.banner")}
      </span>
      {operator && (
        <Button size="compact-xs" variant="default" onClick={() => setOrder({ wish: { kind: "release" }, targets: [{ host_id: host.id, host: host.name }] })}>
          {t("order.release.do")}
        </Button>
      )}
      <OrderDialog order={order} close={() => setOrder(null)} />
    </div>
  );
}
