// All that the page says, by language. English is there at once; another is fetched when chosen.
import i18next from "i18next";
import { initReactI18next } from "react-i18next";
import en from "./en.json";

export const LANGUAGES = { en: "English", ja: "日本語" } as const;
export type Language = keyof typeof LANGUAGES;

const KEPT = "holdfast.language";

function wanted(): Language {
  const kept = localStorage.getItem(KEPT);
  if (kept === "en" || kept === "ja") return kept;
  return navigator.language.startsWith("ja") ? "ja" : "en";
}

void i18next.use(initReactI18next).init({
  lng: "en",
  fallbackLng: "en",
  resources: { en: { translation: en } },
  // React escapes; what hosts say goes through `visible` before.
  interpolation: { escapeValue: false },
  returnNull: false,
});

export async function speak(language: Language): Promise<void> {
  if (language === "ja" && !i18next.hasResourceBundle("ja", "translation")) {
    const { default: ja } = await import("./ja.json");
    i18next.addResourceBundle("ja", "translation", ja);
  }
  await i18next.changeLanguage(language);
  document.documentElement.lang = language;
}

export async function choose(language: Language): Promise<void> {
  localStorage.setItem(KEPT, language);
  await speak(language);
}

if (wanted() !== "en") void speak(wanted());
