//! DescribeLogDirs (35): what partitions take on the disk.

use crate::Wire;

/// Asks for the sizes of partitions, by the directories that hold them.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 35, versions = "1-4", flexible = 2, response = DescribeLogDirsResponse)]
pub struct DescribeLogDirsRequest {
    /// The topics; null for all of them.
    pub topics: Option<Vec<DescribeLogDirsRequestTopic>>,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct DescribeLogDirsRequestTopic {
    /// The topic's name.
    pub topic: String,
    /// Their numbers.
    pub partitions: Vec<i32>,
}

/// The directories and what is in them.
#[derive(Debug, Clone, PartialEq, Wire)]
#[kafka(key = 35, versions = "1-4", flexible = 2)]
pub struct DescribeLogDirsResponse {
    /// How long the client should wait before its next request, in milliseconds.
    pub throttle_time_ms: i32,
    /// Kafka's code of what went wrong, or 0.
    #[kafka(versions = "3+")]
    pub error_code: i16,
    /// The directories.
    pub results: Vec<DescribeLogDirsResponseResult>,
}

/// A directory.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct DescribeLogDirsResponseResult {
    /// Kafka's code of what went wrong, or 0.
    pub error_code: i16,
    /// Its path.
    pub log_dir: String,
    /// The topics that have partitions there.
    pub topics: Vec<DescribeLogDirsResponseTopic>,
    /// How large the file system is, in bytes, or -1.
    #[kafka(versions = "4+", default = -1)]
    pub total_bytes: i64,
    /// How much of the file system is free, in bytes, or -1.
    #[kafka(versions = "4+", default = -1)]
    pub usable_bytes: i64,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct DescribeLogDirsResponseTopic {
    /// The topic's name.
    pub name: String,
    /// The partitions.
    pub partitions: Vec<DescribeLogDirsResponsePartition>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Wire)]
pub struct DescribeLogDirsResponsePartition {
    /// Its number.
    pub partition_index: i32,
    /// How many bytes its files have.
    pub partition_size: i64,
    /// How far its log end is behind the high watermark.
    pub offset_lag: i64,
    /// Whether it is on its way to this directory and not in use yet.
    pub is_future_key: bool,
}
