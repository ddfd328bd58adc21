// Builds into target/console/files, where manager/build.rs looks. Everything is a file of its own
// below assets/, named by its content; nothing is inlined, since the page's policy forbids it.
import { readFileSync, writeFileSync } from "node:fs";
import { brotliCompressSync, constants } from "node:zlib";
import react from "@vitejs/plugin-react";
import { defineConfig, type Plugin } from "vite";

const OUT = "../../target/console/files";

/** Puts a Brotli copy beside each file that it makes smaller. */
function brotli(): Plugin {
  return {
    name: "brotli",
    apply: "build",
    writeBundle(options, bundle) {
      for (const name of Object.keys(bundle)) {
        if (!/\.(js|css|svg)$/.test(name)) continue;
        const path = `${options.dir}/${name}`;
        const plain = readFileSync(path);
        const packed = brotliCompressSync(plain, {
          params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: plain.length },
        });
        if (packed.length < plain.length) writeFileSync(`${path}.br`, packed);
      }
    },
  };
}

export default defineConfig({
  plugins: [react(), brotli()],
  build: {
    outDir: OUT,
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    chunkSizeWarningLimit: 1200,
  },
});
