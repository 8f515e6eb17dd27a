// What is written with the types that openapi-typescript makes: what is right passes, what is wrong does not.
import type { components, paths } from "./api";

type NewJob = components["schemas"]["NewJob"];
type Query = NonNullable<paths["/v1/jobs"]["get"]["parameters"]["query"]>;
type Submitted = paths["/v1/jobs"]["post"]["responses"]["201"]["content"]["application/json"];
type Line = paths["/v1/jobs/{job}/events"]["get"]["responses"]["200"]["content"]["application/x-ndjson"];

export const job: NewJob = { image: "python:3.9-slim", input: { prompt: "a cat" }, retries: 1 };
export const query: Query = { state: "FINISHED", limit: 10 };
export const line: Line = '{"event":"state","value":"IN_QUEUE"}';
export const idOf = (answer: Submitted): string => answer.id;

// @ts-expect-error: a typo
export const typo: NewJob = { image: "python:3.9-slim", retires: 1 };
// @ts-expect-error: no such state
export const noState: Query = { state: "DONE" };
