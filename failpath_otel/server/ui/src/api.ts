// The shapes of the API by their short names; api.gen.ts is made from the server's OpenAPI document by `make ui`.
import type { components } from "./api.gen";

type Schemas = components["schemas"];

export type About = Schemas["AboutRow"];
export type AttemptRow = Schemas["AttemptRow"];
export type Change = Schemas["Change"];
export type EdgeRow = Schemas["EdgeRow"];
export type ErrorGroup = Schemas["ErrorGroup"];
export type EventList = Schemas["EventList"];
export type FlowDetail = Schemas["FlowDetail"];
export type FlowList = Schemas["FlowList"];
export type FlowNode = Schemas["FlowNode"];
export type FlowRow = Schemas["FlowRow"];
export type GridRun = Schemas["GridRun"];
export type IntakeCounts = Schemas["IntakeCounts"];
export type RunDetail = Schemas["RunDetail"];
export type RunMark = Schemas["RunMark"];
export type RunPage = Schemas["RunPage"];
export type RunRow = Schemas["RunRow"];
export type StepRow = Schemas["StepRow"];
