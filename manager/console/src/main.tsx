// The page begins here: providers around the routes, and nothing else.
import "@mantine/core/styles.css";
import "@mantine/notifications/styles.css";
import "./style.css";
import "./words";
import { MantineProvider } from "@mantine/core";
import { Notifications } from "@mantine/notifications";
import { QueryClientProvider } from "@tanstack/react-query";
import { StrictMode, useMemo } from "react";
import { createRoot } from "react-dom/client";
import { useTranslation } from "react-i18next";
import { BrowserRouter } from "react-router";
import { queries } from "./api/queries";
import { App } from "./shell/App";
import { themed } from "./theme";
import { WordsContext } from "./words/context";

// The server writes a number into each answer; only style sheets that carry it are let in.
const nonce = document.querySelector('meta[name="csp-nonce"]')?.getAttribute("content") ?? "";

function Page() {
  const { t, i18n } = useTranslation();
  const { language } = i18n;
  const close = t("close");
  const theme = useMemo(() => themed(close), [close]);
  const words = useMemo(() => ({ t, language }), [t, language]);
  return (
    <MantineProvider theme={theme} defaultColorScheme="auto" getStyleNonce={() => nonce}>
      <WordsContext.Provider value={words}>
        <QueryClientProvider client={queries}>
          <BrowserRouter>
            <Notifications position="bottom-right" limit={4} />
            <App />
          </BrowserRouter>
        </QueryClientProvider>
      </WordsContext.Provider>
    </MantineProvider>
  );
}

const root = document.getElementById("root");
if (root) {
  createRoot(root).render(
    <StrictMode>
      <Page />
    </StrictMode>,
  );
}
