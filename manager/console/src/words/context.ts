// The words and the language for what is drawn by the hundred: `useTranslation` subscribes each part
// that calls it, which in a long list takes longer than all else.
import type { TFunction } from "i18next";
import i18next from "i18next";
import { createContext, useContext } from "react";

export interface Words {
  t: TFunction;
  language: string;
}

export const WordsContext = createContext<Words>({ t: i18next.t, language: "en" });

export const useWords = (): Words => useContext(WordsContext);
