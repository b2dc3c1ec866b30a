//! Each client runs the same checks; docs/compatibility.md says what they can do.

use super::{groups, page::Page, program::Program};

fn every_check_passes(program: Program) {
    let Some(mut report) = program.run() else {
        return;
    };
    report.outcomes.extend(groups::run(program));
    Page::hold(&report);
}

#[test]
fn kcat_works_unmodified() {
    every_check_passes(Program::Python("kcat"));
}

#[test]
fn confluent_kafka_works_unmodified() {
    every_check_passes(Program::Python("confluent"));
}

#[test]
fn kafka_python_works_unmodified() {
    every_check_passes(Program::Python("kafka_python"));
}

#[test]
fn aiokafka_works_unmodified() {
    every_check_passes(Program::Python("aiokafka"));
}

#[test]
fn kafkajs_works_unmodified() {
    every_check_passes(Program::Kafkajs);
}

#[test]
fn rdkafka_works_unmodified() {
    every_check_passes(Program::Rdkafka);
}

#[test]
fn kafkas_own_java_client_works_unmodified() {
    every_check_passes(Program::Java);
}

#[test]
fn franz_go_works_unmodified() {
    every_check_passes(Program::FranzGo);
}
