// Every page: where it is, and its place in the menu. A page is a folder below pages/; it is fetched
// when somebody goes there. An entry of the menu exists when its page does.
import { lazy, type ComponentType } from "react";
import type { IconName } from "./parts/Icon";

export interface Route {
  path: string;
  page: ComponentType;
  /** In the menu, with the letter after `g`, of all or of admins alone. The words are `menu.NAME`. */
  menu?: { name: string; icon: IconName; key: string; admin?: true };
}

const Overview = lazy(() => import("./pages/overview/OverviewPage"));
const Alerts = lazy(() => import("./pages/alerts/AlertsPage"));
const Alert = lazy(() => import("./pages/alerts/AlertPage"));
const Events = lazy(() => import("./pages/events/EventsPage"));
const Event = lazy(() => import("./pages/events/EventPage"));
const Quarantine = lazy(() => import("./pages/quarantine/QuarantinePage"));
const Item = lazy(() => import("./pages/quarantine/ItemPage"));
const Search = lazy(() => import("./pages/search/SearchPage"));
const Scans = lazy(() => import("./pages/scans/ScansPage"));
const Scan = lazy(() => import("./pages/scans/ScanPage"));
const Account = lazy(() => import("./pages/account/AccountPage"));
const Hosts = lazy(() => import("./pages/hosts/HostsPage"));
const Host = lazy(() => import("./pages/hosts/HostPage"));
const Tasks = lazy(() => import("./pages/tasks/TasksPage"));
const Task = lazy(() => import("./pages/tasks/TaskPage"));
const Profile = lazy(() => import("./pages/profile/ProfilePage"));
const Models = lazy(() => import("./pages/models/ModelsPage"));
const Model = lazy(() => import("./pages/models/ModelPage"));
const Shells = lazy(() => import("./pages/shells/ShellsPage"));
const Shell = lazy(() => import("./pages/shells/ShellPage"));
const Policies = lazy(() => import("./pages/policies/PoliciesPage"));
const Policy = lazy(() => import("./pages/policies/PolicyPage"));
const PolicyEdit = lazy(() => import("./pages/policies/EditPage"));
const Admin = lazy(() => import("./pages/admin/AdminPage"));

export const ROUTES: Route[] = [
  { path: "/", page: Overview, menu: { name: "overview", icon: "overview", key: "o" } },
  { path: "/alerts", page: Alerts, menu: { name: "alerts", icon: "alerts", key: "a" } },
  { path: "/alerts/:id", page: Alert },
  { path: "/events", page: Events, menu: { name: "events", icon: "events", key: "e" } },
  { path: "/events/:number", page: Event },
  { path: "/quarantine", page: Quarantine, menu: { name: "quarantine", icon: "quarantine", key: "q" } },
  { path: "/quarantine/:host/:item", page: Item },
  { path: "/search", page: Search, menu: { name: "search", icon: "search", key: "s" } },
  { path: "/scans", page: Scans, menu: { name: "scans", icon: "scans", key: "c" } },
  { path: "/scans/:number", page: Scan },
  { path: "/hosts", page: Hosts, menu: { name: "hosts", icon: "hosts", key: "h" } },
  { path: "/hosts/:id", page: Host },
  { path: "/hosts/:id/processes/:key", page: Profile },
  { path: "/tasks", page: Tasks, menu: { name: "tasks", icon: "tasks", key: "t" } },
  { path: "/tasks/:id", page: Task },
  { path: "/shells", page: Shells, menu: { name: "shells", icon: "shells", key: "r" } },
  { path: "/shells/:id", page: Shell },
  { path: "/account", page: Account },
  { path: "/models", page: Models, menu: { name: "models", icon: "models", key: "m" } },
  { path: "/models/:id", page: Model },
  { path: "/policies", page: Policies, menu: { name: "policies", icon: "policies", key: "p" } },
  { path: "/policies/:id", page: Policy },
  { path: "/policies/:id/edit", page: PolicyEdit },
  { path: "/admin", page: Admin, menu: { name: "admin", icon: "admin", key: "d", admin: true } },
  { path: "/admin/:part", page: Admin },
];
