// Text that a host, a file or another person chose. Nothing of it is ever markup.
import { UnstyledButton } from "@mantine/core";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { cut, harmless, pieces } from "./visible";

interface Props {
  text: string;
  /** Characters that are shown at first. */
  most?: number;
  mono?: boolean;
  /** Of several lines. */
  lines?: boolean;
}

export function Plain(props: Props) {
  const { text, most = 400, mono = false } = props;
  // Most text is no more than that.
  if (text.length <= most && harmless(text)) return <bdi className={mono ? "plain mono" : "plain"}>{text}</bdi>;
  // Its place may be given to another text, which was not opened.
  return <Marked key={text} {...props} />;
}

function Marked({ text, most = 400, mono = false, lines = false }: Props) {
  const { t } = useTranslation();
  const [whole, setWhole] = useState(false);
  const shown = whole ? text : cut(text, most);
  return (
    <bdi className={mono ? "plain mono" : "plain"}>
      {pieces(shown, lines).map((piece, index) =>
        piece.odd ? (
          <span key={index} className="odd" title={t("text.odd")}>
            {piece.text}
          </span>
        ) : (
          piece.text
        ),
      )}
      {shown.length < text.length && (
        <>
          {"… "}
          <UnstyledButton className="link" onClick={() => setWhole(true)}>
            {t("text.all", { count: text.length })}
          </UnstyledButton>
        </>
      )}
    </bdi>
  );
}
