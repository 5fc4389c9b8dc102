import { render } from "preact";
import { App } from "./app";
import { start } from "./live";
import { applyTheme } from "./preferences";

applyTheme();
start();
const root = document.getElementById("app");
if (root) render(<App />, root);
