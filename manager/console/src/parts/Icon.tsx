// The few pictures, each one path on a field of 24 by 24.
const PATHS = {
  overview: "M4 13h6V4H4v9Zm0 7h6v-4H4v4Zm10 0h6v-9h-6v9Zm0-16v4h6V4h-6Z",
  alerts: "M12 3 2.5 20h19L12 3Zm0 6v5m0 3v.5",
  hosts: "M4 4h16v6H4V4Zm0 10h16v6H4v-6Zm4-7h.5M8 17h.5",
  tasks: "M9 6h11M9 12h11M9 18h11M4 6l1 1 2-2M4 12l1 1 2-2M4 18l1 1 2-2",
  models: "M4 12h4l2.5-7 4 14 2.5-7H21",
  admin: "M4 8h9m5 0h2M4 16h2m5 0h9M15.5 10.5a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5Zm-7 8a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5Z",
  more: "M5 12h.01M12 12h.01M19 12h.01",
  menu: "M4 6h16M4 12h16M4 18h16",
  search: "M10.5 17a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13Zm5-1.5L21 21",
  calendar: "M4 6h16v14H4V6Zm0 4h16M8 3v4m8-4v4",
  columns: "M4 5h16v14H4V5Zm5.3 0v14m5.4-14v14",
  download: "M12 4v11m-4.5-4L12 15.5 16.5 11M4 20h16",
  close: "M6 6l12 12M18 6 6 18",
  lock: "M6 11h12v9H6v-9Zm3 0V8a3 3 0 0 1 6 0v3",
  user: "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8Zm-8 9c0-4 3.5-6 8-6s8 2 8 6",
  copy: "M8 8h12v12H8V8Zm-4 8V4h12",
  plus: "M12 5v14M5 12h14",
  dots: "M5 12h.5M12 12h.5M19 12h.5",
  events: "M9 9a3 3 0 0 1 6 0v6a3 3 0 0 1-6 0V9Zm0 1H5m4 4H4m5 3-3 3m9-10h4m-4 4h5m-5 3 3 3M9.5 6 8 4m6.5 2L16 4",
  quarantine: "M4 5h16v4H4V5Zm1 4h14v11H5V9Zm5 4h4",
  scans: "M4 8V4h4m8 0h4v4m0 8v4h-4M8 20H4v-4m0-4h16",
  shells: "M4 5h16v14H4V5Zm3 4 3 3-3 3m5 0h4",
  policies: "M6 3h9l4 4v14H6V3Zm3 7h6m-6 4h6m-6 4h3",
  star: "m12 4 2.5 5.2 5.5.8-4 4 1 5.8L12 17l-5 2.8 1-5.8-4-4 5.5-.8L12 4Z",
  right: "m9 6 6 6-6 6",
  offline: "M3 3l18 18M5 12a10 10 0 0 1 5-3m4 0a10 10 0 0 1 5 3M8.5 16a5 5 0 0 1 7 0M12 20v.5",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name, size = 16 }: { name: IconName; size?: number }) {
  return (
    <svg width={size} height={size} viewBox="0 0 24 24" fill="none" stroke="currentColor" strokeWidth={1.8}
      strokeLinecap="round" strokeLinejoin="round" aria-hidden="true" className="icon">
      <path d={PATHS[name]} />
    </svg>
  );
}
