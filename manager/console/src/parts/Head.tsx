// The head of a page about one thing: the way back, its name, what it is in a line, and its state or
// action at the side.
import type { ReactNode } from "react";
import { Link } from "react-router";

type Shown = {
  to: string;
  back: ReactNode;
  title: ReactNode;
  side?: ReactNode;
  children?: ReactNode;
};

export const Head = ({ to, back, title, side, children }: Shown) => (
  <header className="head">
    <div className="title">
      <Link to={to} className="back">
        {back}
      </Link>
      <h1>{title}</h1>
      {children}
    </div>
    {side}
  </header>
);
