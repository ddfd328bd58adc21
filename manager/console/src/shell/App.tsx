// Signed in or not; then the frame of every page: menu, banners, keys.
import { ActionIcon, Burger, Drawer, Menu, Modal, useMantineColorScheme } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useQueryClient } from "@tanstack/react-query";
import { Component, Suspense, useEffect, useState, type ReactNode } from "react";
import { useTranslation } from "react-i18next";
import { Link, Navigate, NavLink, Route, Routes, useLocation } from "react-router";
import { remove, signedOut } from "../api/client";
import { useConnectionLost, useLive } from "../api/live";
import { useSession } from "../api/queries";
import type { Session } from "../api/types";
import { Icon } from "../parts/Icon";
import { Empty, Failure, useReason, Waiting } from "../parts/Notice";
import { Plain } from "../parts/Plain";
import { ROUTES } from "../routes";
import { choose, LANGUAGES, type Language } from "../words";
import { FirstPassword, SignIn } from "../pages/sign-in/SignIn";
import { useKeys } from "./keys";
import { SessionContext, useRole } from "./session";

export function App() {
  const session = useSession();
  const client = useQueryClient();
  const { t } = useTranslation();
  useEffect(() => {
    const out = () => {
      client.setQueryData(["session"], null);
      client.removeQueries({ predicate: (one) => one.queryKey[0] !== "session" });
    };
    signedOut.addEventListener("signedout", out);
    return () => signedOut.removeEventListener("signedout", out);
  }, [client]);
  if (session.isPending) return <Waiting />;
  if (session.error && !session.data) return <Failure error={session.error} retry={() => void session.refetch()} />;
  if (!session.data) return <SignIn />;
  if (session.data.must_change_password) return <FirstPassword name={session.data.name} />;
  return (
    <SessionContext.Provider value={session.data}>
      <a href="#main" className="skip">
        {t("frame.skip")}
      </a>
      <Frame session={session.data} />
    </SessionContext.Provider>
  );
}

function Frame({ session }: { session: Session }) {
  const { t } = useTranslation();
  const [help, setHelp] = useState(false);
  const [menu, setMenu] = useState(false);
  const lost = useConnectionLost();
  const place = useLocation();
  useLive(true);
  useKeys(() => setHelp(true));
  useEffect(() => setMenu(false), [place.pathname]);
  useEffect(() => {
    const first = place.pathname.split("/")[1];
    const route = ROUTES.find((one) => one.path === `/${first}` && one.menu);
    document.title = `${route?.menu ? t(`menu.${route.menu.name}`) : t(first === "account" ? "account.title" : "name")} – Holdfast`;
  }, [place.pathname, t]);
  return (
    <div className="frame">
      <aside className="side">
        <Brand />
        <Links />
        <Person session={session} help={() => setHelp(true)} />
      </aside>
      <header className="top">
        <Burger opened={menu} onClick={() => setMenu(!menu)} size="sm" aria-label={t("frame.menu")} />
        <Brand />
      </header>
      <Drawer opened={menu} onClose={() => setMenu(false)} size={260} title={t("name")} lockScroll={false}>
        <Links />
        <Person session={session} help={() => setHelp(true)} />
      </Drawer>
      <main id="main" tabIndex={-1}>
        {lost && (
          <div className="banner lost" role="alert">
            <Icon name="offline" />
            <span>{t("frame.lost")}</span>
          </div>
        )}
        <Fault key={place.pathname}>
          <Suspense fallback={<Waiting />}>
            <Routes>
              {ROUTES.map(({ path, page: Page }) => (
                <Route key={path} path={path} element={<Page />} />
              ))}
              {/* A sign-in by a provider that was refused came back to it. */}
              <Route path="/sign-in" element={<Navigate to="/" replace />} />
              <Route path="*" element={<Empty title={t("frame.nothing")} hint={t("frame.nothingHint")} />} />
            </Routes>
          </Suspense>
        </Fault>
      </main>
      <Help opened={help} close={() => setHelp(false)} />
    </div>
  );
}

/** A page that fails says so, and leaves the menu standing. */
class Fault extends Component<{ children: ReactNode }, { error: Error | null }> {
  override state = { error: null };
  static getDerivedStateFromError(error: Error) {
    return { error };
  }
  override render() {
    return this.state.error ? <Failure error={this.state.error} retry={() => location.reload()} /> : this.props.children;
  }
}

function Brand() {
  const { t } = useTranslation();
  return (
    <NavLink to="/" className="brand">
      <svg width="22" height="22" viewBox="0 0 32 32" aria-hidden="true">
        <rect width="32" height="32" rx="7" fill="#1c5d99" />
        <path d="M9 7v18M23 7v18M9 16h14" stroke="#fff" strokeWidth="4" strokeLinecap="round" />
      </svg>
      <span>{t("name")}</span>
    </NavLink>
  );
}

function Links() {
  const { t } = useTranslation();
  const { admin } = useRole();
  return (
    <nav aria-label={t("frame.menu")}>
      {ROUTES.map(({ path, menu }) =>
        menu && (admin || !menu.admin) ? (
          <NavLink key={path} to={path} end={path === "/"} className="entry">
            <Icon name={menu.icon} />
            <span>{t(`menu.${menu.name}`)}</span>
            <kbd aria-hidden="true">{`g ${menu.key}`}</kbd>
          </NavLink>
        ) : null,
      )}
    </nav>
  );
}

function Person({ session, help }: { session: Session; help: () => void }) {
  const { t, i18n } = useTranslation();
  const { colorScheme, setColorScheme } = useMantineColorScheme();
  const reason = useReason();
  const out = async () => {
    try {
      await remove("/api/v1/session");
      signedOut.dispatchEvent(new Event("signedout"));
    } catch (error) {
      notifications.show({ color: "red", message: reason(error) });
    }
  };
  return (
    <div className="person">
      <Menu position="top-start" width={220}>
        <Menu.Target>
          <button type="button" className="entry">
            <Icon name="user" />
            <span>
              <Plain text={session.name} most={40} />
              <small>{t(`role.${session.role}`)}</small>
            </span>
          </button>
        </Menu.Target>
        <Menu.Dropdown>
          <Menu.Label>{t("frame.look")}</Menu.Label>
          {(["auto", "light", "dark"] as const).map((scheme) => (
            <Menu.Item key={scheme} onClick={() => setColorScheme(scheme)} fw={scheme === colorScheme ? 700 : 400}>
              {t(`scheme.${scheme}`)}
            </Menu.Item>
          ))}
          <Menu.Label>{t("frame.language")}</Menu.Label>
          {(Object.keys(LANGUAGES) as Language[]).map((language) => (
            <Menu.Item key={language} lang={language} onClick={() => void choose(language)} fw={language === i18n.language ? 700 : 400}>
              {LANGUAGES[language]}
            </Menu.Item>
          ))}
          <Menu.Divider />
          <Menu.Item component={Link} to="/account">
            {t("account.title")}
          </Menu.Item>
          <Menu.Item onClick={() => void out()}>{t("frame.signOut")}</Menu.Item>
        </Menu.Dropdown>
      </Menu>
      <ActionIcon variant="subtle" color="gray" onClick={help} aria-label={t("keys.title")}>
        <kbd>{"?"}</kbd>
      </ActionIcon>
    </div>
  );
}

function Help({ opened, close }: { opened: boolean; close: () => void }) {
  const { t } = useTranslation();
  const { operator, admin } = useRole();
  const rows: [string, string][] = [
    ...ROUTES.flatMap(({ menu }): [string, string][] => (menu && (admin || !menu.admin) ? [[`g ${menu.key}`, t(`menu.${menu.name}`)]] : [])),
    ["/", t("keys.find")],
    ["↑ ↓  j k", t("keys.move")],
    ["Enter", t("keys.open")],
    ...(operator ? ([["Space  x", t("keys.choose")], ["Shift", t("keys.range")]] as [string, string][]) : []),
    ["Esc", t("keys.leave")],
    ["?", t("keys.title")],
  ];
  return (
    <Modal opened={opened} onClose={close} title={t("keys.title")}>
      <dl className="keys">
        {rows.map(([key, what]) => (
          <div key={key}>
            <dt>
              <kbd>{key}</kbd>
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
    </Modal>
  );
}
