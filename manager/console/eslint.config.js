import hooks from "eslint-plugin-react-hooks";
import ts from "typescript-eslint";

export default ts.config(
  { ignores: ["node_modules", "src/api/schema.ts"] },
  ...ts.configs.recommended,
  {
    files: ["src/**/*.{ts,tsx}"],
    plugins: { "react-hooks": hooks },
    rules: {
      ...hooks.configs.recommended.rules,
      // What a host says is text, never markup; no address is built from it by hand.
      "no-restricted-syntax": [
        "error",
        { selector: "JSXAttribute[name.name='dangerouslySetInnerHTML']", message: "text is never markup" },
        { selector: "JSXText[value=/[A-Za-z\\u3040-\\u9fff]/]", message: "words belong into src/words" },
        {
          selector:
            "JSXAttribute[name.name=/^(label|title|placeholder|description|aria-label|alt)$/] > Literal[value=/[A-Za-z]/]",
          message: "words belong into src/words",
        },
      ],
      "no-eval": "error",
      "max-lines": ["error", 800],
    },
  },
);
