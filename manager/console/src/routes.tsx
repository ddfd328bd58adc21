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
const Hosts = lazy(() => import("./pages/hosts/HostsPage"));
const Host = lazy(() => import("./pages/hosts/HostPage"));
const Tasks = lazy(() => import("./pages/tasks/TasksPage"));
const Task = lazy(() => import("./pages/tasks/TaskPage"));
const Profile = lazy(() => import("./pages/profile/ProfilePage"));
const Models = lazy(() => import("./pages/models/ModelsPage"));
const Model = lazy(() => import("./pages/models/ModelPage"));
const Admin = lazy(() => import("./pages/admin/AdminPage"));

export const ROUTES: Route[] = [
  { path: "/", page: Overview, menu: { name: "overview", icon: "overview", key: "o" } },
  { path: "/alerts", page: Alerts, menu: { name: "alerts", icon: "alerts", key: "a" } },
  { path: "/alerts/:id", page: Alert },
  { path: "/hosts", page: Hosts, menu: { name: "hosts", icon: "hosts", key: "h" } },
  { path: "/hosts/:id", page: Host },
  { path: "/hosts/:id/processes/:key", page: Profile },
  { path: "/tasks", page: Tasks, menu: { name: "tasks", icon: "tasks", key: "t" } },
  { path: "/tasks/:id", page: Task },
  { path: "/models", page: Models, menu: { name: "models", icon: "models", key: "m" } },
  { path: "/models/:id", page: Model },
  { path: "/admin", page: Admin, menu: { name: "admin", icon: "admin", key: "d", admin: true } },
  { path: "/admin/:part", page: Admin },
];
